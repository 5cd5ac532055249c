"""Commands that are killed while an encoder is trained."""

from __future__ import annotations

import signal
import subprocess
import sys

PROGRAM = """
import os, signal, sys
import train.encoders

epoch = int(sys.argv.pop(1))


class Fatal(train.encoders.Validation):
    scored = 0

    def score(self, encoder):
        Fatal.scored += 1
        if Fatal.scored == epoch:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().score(encoder)


train.encoders.Validation = Fatal
train.encoders.CHECKPOINT_SECONDS = 0.0
from llara_app.cli.main import main

main()
"""


def kill_in_epoch(epoch: int, *arguments: str) -> None:
    """Run ``llara-app`` in a process that SIGKILL ends in an epoch of its first encoder's training: nothing can be
    said or saved any more. All epochs before are kept."""
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(epoch), *arguments], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
