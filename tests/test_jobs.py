"""Background jobs: started, followed, stopped, and found again by a front end that knows only their folder."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

import pytest

from llara_app import jobs
from llara_app.errors import LlaraError
from llara_app.jobs import Job, JobStatus, list_jobs, start_job

Stand = Callable[[str], None]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Stand:
    """Lets a job run a small script instead of the application."""

    def use(source: str) -> None:
        def spawn(arguments: Sequence[str], stdout: IO[bytes], stderr: IO[bytes]) -> subprocess.Popen[bytes]:
            return subprocess.Popen([sys.executable, "-c", source], stdout=stdout, stderr=stderr)

        monkeypatch.setattr(jobs, "_spawn", spawn)

    return use


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def test_output_and_last_words_are_kept(script: Stand) -> None:
    script("import sys; print('{}'); print('half\\rwhole', file=sys.stderr); print('end', file=sys.stderr)")
    job = start_job("evaluate", "/some/bundle", ["evaluate", "/some/bundle"])
    assert job.wait(60)
    assert job.status() is JobStatus.FINISHED
    assert (job.output(), job.tail()) == ("{}\n", ["whole", "end"])
    assert job.command == "llara-app evaluate /some/bundle"
    assert Job(job.folder).record.exit_code == 0


def test_progress_is_read_off_the_last_line(script: Stand) -> None:
    script("import sys; sys.stderr.write('\\x1b[2Kstart 1/4\\r\\x1b[2Krows ━━ 1,200/4,800 0:01')")
    job = start_job("evaluate", "x", [])
    assert job.wait(60)
    assert job.tail() == ["rows ━━ 1,200/4,800 0:01"]
    assert job.fraction() == 0.25


@pytest.mark.parametrize(
    ("source", "status"),
    [
        ("raise SystemExit(1)", JobStatus.FAILED),
        ("raise SystemExit(130)", JobStatus.STOPPED),
        ("print('done')", JobStatus.FINISHED),
    ],
)
def test_status_by_exit_code(script: Stand, source: str, status: JobStatus) -> None:
    script(source)
    job = start_job("evaluate", "x", [])
    assert job.wait(60)
    assert job.status() is status


@pytest.mark.parametrize(
    ("source", "status"),
    [
        ("import sys; print('error: no', file=sys.stderr); sys.exit(1)", JobStatus.FAILED),
        ("import sys; print('interrupted', file=sys.stderr); sys.exit(130)", JobStatus.STOPPED),
        ("print('done')", JobStatus.FINISHED),
        ("pass", JobStatus.FAILED),
    ],
)
def test_status_by_last_words_where_the_code_is_lost(
    script: Stand, source: str, status: JobStatus, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(source)
    job = start_job("evaluate", "x", [])
    jobs._started[job.record.pid].wait()
    monkeypatch.setattr(jobs, "_started", {})
    assert Job(job.folder).status() is status


def test_stopping_and_killing(script: Stand) -> None:
    script(
        "import signal, time, sys\n"
        "signal.signal(signal.SIGINT, lambda *_: sys.exit(130))\n"
        "print('ready', file=sys.stderr, flush=True)\n"
        "time.sleep(600)"
    )
    job = start_job("train", "x", [])
    wait_for(lambda: job.tail() == ["ready"])
    with pytest.raises(LlaraError):
        start_job("train", "x", [])
    again = list_jobs("train")[0]
    assert again.status() is JobStatus.RUNNING
    again.stop()
    assert job.wait(60)
    assert job.status() is JobStatus.STOPPED
    script("import time; time.sleep(600)")
    job = start_job("train", "x", [])
    job.kill()
    assert job.wait(60)
    assert job.status() is JobStatus.FAILED
    job.forget()
    assert list_jobs() == []


def test_another_process_with_the_same_id_is_not_the_job(script: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    script("import time; time.sleep(600)")
    job = start_job("train", "x", [])
    monkeypatch.setattr(jobs, "_started", {})
    record = job.folder / jobs.RECORD_FILE
    altered = record.read_text().replace(str(job.record.created), str(job.record.created - 1000))
    assert altered != record.read_text()
    record.write_text(altered)
    assert not Job(job.folder).is_running()
    job.kill()


def test_unreadable_records_are_passed_over(script: Stand, llara_home: Path) -> None:
    script("pass")
    job = start_job("train", "x", [])
    broken = llara_home / "jobs" / "broken"
    broken.mkdir()
    (broken / jobs.RECORD_FILE).write_text("{")
    assert [each.folder for each in list_jobs()] == [job.folder]
    with pytest.raises(LlaraError):
        Job(broken)
    job.wait(60)


def test_the_real_command_line_runs() -> None:
    job = start_job("list", "datasets", ["data", "list", "--format", "json"])
    assert job.wait(120)
    assert (job.status(), job.output().strip()) == (JobStatus.FINISHED, "[]")
