"""Training as a background job: the exact command, its log as it grows, stopping, resuming, finding it again."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from llara_app import locations
from llara_app.errors import UsageError
from llara_app.jobs import JobStatus
from llara_app.locks import alone
from llara_app.training_runs import (
    StepLog,
    TrainingRun,
    TrainSettings,
    find_run,
    free_output,
    list_runs,
    start_training,
    training_lock,
)


def line(step: int, loss: float = 1.0, total: int = 10) -> str:
    return (
        json.dumps(
            {
                "step": step,
                "total_steps": total,
                "loss": loss,
                "probability": step / total,
                "num_hybrid": 1,
                "num_examples": 4,
                "learning_rate": 1e-3,
                "seconds": 0.5,
            }
        )
        + "\n"
    )


def test_command_says_what_was_set_and_nothing_else() -> None:
    settings = TrainSettings("films", Path("out dir"), epochs=2.0, learning_rate=5e-4, max_steps=7)
    assert settings.command == (
        "llara-app train --dataset films --output 'out dir' --llm nano --encoder sasrec --curriculum linear"
        " --epochs 2 --max-steps 7 --learning-rate 0.0005"
    )


def test_log_is_followed_as_it_grows(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    log = StepLog([tmp_path / "missing.jsonl", path])
    assert not log.poll()
    path.write_text(line(0) + line(1)[:20])
    assert log.poll()
    assert [step.step for step in log.steps] == [0]
    assert not log.poll()
    path.write_text(line(0) + line(1))
    assert log.poll()
    assert [step.step for step in log.steps] == [0, 1]
    assert log.samples_per_second == 8
    assert log.seconds_left == 4


def test_log_that_was_cut_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(line(0) + line(1) + line(2))
    log = StepLog([path])
    log.poll()
    scratch = tmp_path / "scratch"
    scratch.write_text(line(0, loss=2.0))
    scratch.replace(path)
    assert log.poll()
    assert [step.loss for step in log.steps] == [2.0]
    path.unlink()
    assert not log.poll()


def test_runs_of_others_are_listed() -> None:
    folder = locations.bundles() / "mine.training"
    folder.mkdir(parents=True)
    (folder / "run.json").write_text("{}")
    (folder / "log.jsonl").write_text(line(0))
    (run,) = list_runs()
    with alone(training_lock(run.output)):
        assert (run.name, run.status(), run.can_resume) == ("mine", JobStatus.RUNNING, False)
    assert (run.status(), run.can_resume) == (JobStatus.STOPPED, True)
    with pytest.raises(UsageError):
        run.stop()
    with pytest.raises(UsageError):
        start_training(TrainSettings("films", run.output))
    assert free_output("films", "/models/tiny", "linear").name == "films-tiny-linear"


def wait_for(condition: Callable[[], bool], run: TrainingRun, seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline and run.status() is not JobStatus.FAILED, "\n".join(run.tail())
        time.sleep(0.1)


@pytest.mark.slow
def test_train_stop_resume_finish(tmp_path: Path) -> None:
    from tests.small_world import make_world

    world = make_world(tmp_path)
    output = locations.bundles() / "small"
    settings = TrainSettings(
        dataset="small",
        output=output,
        llm=str(world.llm),
        encoder=str(world.encoder),
        protocol="leave-one-out",
        max_steps=400,
        batch_size=4,
        extra=("--candidates", "5"),
    )
    run = start_training(settings, db=world.store.path)

    def steps_logged(count: int) -> Callable[[], bool]:
        return lambda: run.log.poll() and len(run.log.steps) >= count

    wait_for(steps_logged(2), run)
    again = find_run(output)
    assert again.status() is JobStatus.RUNNING
    again.stop()
    wait_for(lambda: run.status() is JobStatus.STOPPED, run)
    done = len(run.log.steps)
    assert again.can_resume
    again.resume(db=world.store.path)
    assert again.job is not None
    wait_for(lambda: again.log.poll() and len(again.log.steps) > done, again)
    again.stop()
    assert again.job.wait(240)
    assert [step.step for step in again.log.steps] == list(range(len(again.log.steps)))
    assert len({step.total_steps for step in again.log.steps}) == 1
