"""The command line. Each command imports the heavy rooms (torch, transformers, ...) only when it runs."""

from llara_app.cli.main import main

__all__ = ["main"]
