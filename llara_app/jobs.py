"""Commands of the command line run in the background: they outlive the front end that started them.

A job is a folder under the home: ``job.json`` says what runs and as which process, ``stdout`` and ``console.log``
keep what it prints. Whoever reads that folder can follow the job: a front end that was closed finds its jobs again.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import IO, Any

import psutil

from llara_app import locations
from llara_app.errors import LlaraError
from llara_app.files import write_whole

RECORD_FILE = "job.json"
STDOUT_FILE = "stdout"
CONSOLE_FILE = "console.log"

INTERRUPTED = 130
TAIL_BYTES = 64 * 1024

_AS_IN_A_TERMINAL = {"PYTHONUNBUFFERED": "1", "TTY_COMPATIBLE": "1", "TTY_INTERACTIVE": "1", "COLUMNS": "100"}
"""So that rich draws its progress bars, which :meth:`Job.tail` and :meth:`Job.fraction` read."""

_CONTROL = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|[\x00-\x08\x0b\x0c\x0e-\x1f]")
_OF_TOTAL = re.compile(r"([\d,]+)/([\d,]+)")

_started: dict[int, subprocess.Popen[bytes]] = {}
"""Processes started by this one: only their parent learns their exit codes."""


class JobStatus(StrEnum):
    RUNNING = "running"
    FINISHED = "finished"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(frozen=True)
class JobRecord:
    """What ``job.json`` holds.

    Attributes:
        kind: what it does: ``train``, ``evaluate``, ``export``.
        subject: what it is about (a bundle's folder), as text.
        arguments: of ``llara-app``.
        created: of the process, in Unix seconds as the system tells it: a process id alone may be given out again.
        exit_code: where it is known.
    """

    kind: str
    subject: str
    arguments: list[str]
    pid: int
    created: float
    started: float
    exit_code: int | None = None


class Job:
    """A background command, running or ended.

    Raises:
        LlaraError: the folder holds no readable record.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            self._record = JobRecord(**json.loads((folder / RECORD_FILE).read_bytes()))
        except (OSError, ValueError, TypeError) as error:
            raise LlaraError("This job's record cannot be read", f"{folder / RECORD_FILE}: {error}") from error

    @property
    def record(self) -> JobRecord:
        return self._record

    @property
    def command(self) -> str:
        """The command as one would type it."""
        return command_line(self._record.arguments)

    def is_running(self) -> bool:
        process = self._process()
        if process is None:
            self._learn_exit_code()
            return False
        return True

    def status(self) -> JobStatus:
        """How it stands. An exit code that nobody waited for is unknown; then the last words decide."""
        if self.is_running():
            return JobStatus.RUNNING
        code = self._record.exit_code
        if code is None:
            tail = self.tail(1)
            failed = any(line.startswith("error:") for line in self.tail(12)) or not self.output().strip()
            code = INTERRUPTED if tail == ["interrupted"] else int(failed)
        if code == 0:
            return JobStatus.FINISHED
        return JobStatus.STOPPED if code in (INTERRUPTED, -signal.SIGINT, -signal.SIGTERM) else JobStatus.FAILED

    def stop(self) -> None:
        """Ask it to end, as Ctrl-C does; it may take until the step under way is done."""
        process = self._process()
        if process is not None:
            process.send_signal(signal.SIGINT)

    def kill(self) -> None:
        """End it, and what it started, at once; what was not written down yet is lost."""
        process = self._process()
        if process is None:
            return
        for each in [*process.children(recursive=True), process]:
            try:
                each.kill()
            except psutil.NoSuchProcess:
                continue

    def wait(self, timeout: float) -> bool:
        """Wait until it has ended; False if it still runs after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while self.is_running():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True

    def output(self) -> str:
        """What it printed to stdout."""
        try:
            return (self.folder / STDOUT_FILE).read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return ""

    def tail(self, lines: int = 50) -> list[str]:
        """The last lines that it printed to stderr; of a line that was overwritten in place, its last state."""
        try:
            with (self.folder / CONSOLE_FILE).open("rb") as stream:
                stream.seek(max(0, stream.seek(0, os.SEEK_END) - TAIL_BYTES))
                text = stream.read().decode("utf-8", errors="replace")
        except FileNotFoundError:
            return []
        plain = _CONTROL.sub("", text).split("\n")
        shown = [line.rstrip("\r").rsplit("\r", 1)[-1].rstrip() for line in plain]
        return [line for line in shown if line][-lines:]

    def fraction(self) -> float | None:
        """How much of its present part is done, in [0, 1], where its last line says so ("12/50")."""
        found = _OF_TOTAL.findall(" ".join(self.tail(1)))
        done, total = (int(number.replace(",", "") or 0) for number in found[-1]) if found else (0, 0)
        return min(1.0, done / total) if total else None

    def forget(self) -> None:
        """Remove the record of a job that has ended."""
        if not self.is_running():
            shutil.rmtree(self.folder, ignore_errors=True)

    def _process(self) -> psutil.Process | None:
        child = _started.get(self._record.pid)
        if child is not None and child.poll() is not None:
            return None
        try:
            process = psutil.Process(self._record.pid)
            alive = abs(process.create_time() - self._record.created) < 1 and process.status() != psutil.STATUS_ZOMBIE
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            return None
        return process if alive else None

    def _learn_exit_code(self) -> None:
        child = _started.pop(self._record.pid, None)
        if child is None or self._record.exit_code is not None:
            return
        self._record = JobRecord(**{**asdict(self._record), "exit_code": child.wait()})
        if self.folder.is_dir():
            write_whole(self.folder / RECORD_FILE, json.dumps(asdict(self._record), indent=2) + "\n")


def start_job(kind: str, subject: str, arguments: Sequence[str], *, db: Path | None = None) -> Job:
    """Run ``llara-app ARGUMENTS`` as a process of its own, which goes on when this one ends.

    A job of the same kind and subject that has ended makes way.

    Args:
        db: the database, where it is not the default one.

    Raises:
        LlaraError: such a job is running already, or the process cannot be started.
    """
    folder = job_folder(kind, subject)
    for job in list_jobs(kind):
        if job.folder == folder and job.is_running():
            raise LlaraError(f"This {kind} is running already", subject, "Stop it first, or wait for its end.")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    arguments = [*arguments, *(["--db", str(db)] if db is not None else [])]
    with (folder / STDOUT_FILE).open("wb") as stdout, (folder / CONSOLE_FILE).open("wb") as console:
        child = _spawn(arguments, stdout, console)
    _started[child.pid] = child
    try:
        created = psutil.Process(child.pid).create_time()
    except psutil.NoSuchProcess:
        created = time.time()
    record = JobRecord(kind, subject, list(arguments), child.pid, created, time.time())
    write_whole(folder / RECORD_FILE, json.dumps(asdict(record), indent=2) + "\n")
    return Job(folder)


def job_folder(kind: str, subject: str) -> Path:
    """Where the job of a kind and a subject keeps its record."""
    digest = hashlib.sha256(subject.encode()).hexdigest()[:8]
    return locations.jobs() / f"{kind}-{Path(subject).name}-{digest}"


def list_jobs(kind: str | None = None) -> list[Job]:
    """All jobs with a record, newest first; folders that hold none are passed over."""
    root = locations.jobs()
    jobs = []
    for folder in root.iterdir() if root.is_dir() else ():
        if (folder / RECORD_FILE).is_file():
            try:
                jobs.append(Job(folder))
            except LlaraError:
                continue
    return sorted(
        (job for job in jobs if kind in (None, job.record.kind)), key=lambda job: job.record.started, reverse=True
    )


def command_line(arguments: Sequence[str]) -> str:
    """``llara-app ARGUMENTS`` as one would type it into a shell."""
    return shlex.join(["llara-app", *arguments])


def _spawn(arguments: Sequence[str], stdout: IO[bytes], stderr: IO[bytes]) -> subprocess.Popen[bytes]:
    # A session of its own: closing the terminal, or Ctrl-C in it, does not reach the job.
    detached: dict[str, Any] = {"start_new_session": True}
    try:
        return subprocess.Popen(
            [sys.executable, "-m", "llara_app", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            env={**os.environ, **_AS_IN_A_TERMINAL, locations.HOME_VARIABLE: str(locations.home())},
            **detached,
        )
    except OSError as error:
        raise LlaraError("The process cannot be started", f"{sys.executable}: {error}") from error
