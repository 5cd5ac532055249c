"""``python -m llara_app``: the command line, for launchers that start modules (``accelerate launch -m``)."""

from llara_app.cli import main

main()
