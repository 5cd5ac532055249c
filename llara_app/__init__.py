"""LLaRA, the Large Language-Recommendation Assistant, as an application."""

from importlib.metadata import version

__version__ = version("llara-app")
