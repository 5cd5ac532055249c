"""The report on one of the paper's questions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict

from llara_app.metric_names import METRICS
from llara_app.models.bundle import package_versions
from llara_app.paper import PAPER_ROWS, RQ1, paper_hit_ratio
from llara_app.ranking.chat_ranker import Usage
from train.experiments import plots
from train.experiments.findings import Finding, Outcome, findings, outcomes
from train.experiments.kept import Kept
from train.experiments.plan import Design, Subject
from train.experiments.plots import Curve
from train.experiments.report_content import Made, Picture, Report, Table
from train.experiments.runner import Measured
from train.metrics import Estimate
from train.run_log import read_step_log

RIGOUR = (
    "Each system ranks the same frozen candidates. Means are over training seeds, redraws of candidates and users. "
    "Intervals are 95 % bootstrap intervals over users, all seeds and redraws of a user being repeated measures; "
    "the spread over training seeds stands beside them. A difference is claimed only where its paired interval "
    "excludes zero and its p-value, corrected for all comparisons of this report (Holm), is below .05."
)
PAPER_NOTE = (
    "The paper’s figures stand beside ours and were not measured here: Llama-2-7B (GPT-4 as the chat model), greedy "
    "answers, one training, {rows} test rows on this dataset, no intervals."
)
NOT_ASKED = "{row} was not asked here, nor anything in its place: a figure beside it is the paper’s."


def paper_report(design: Design, measured: Sequence[Measured], command: str) -> Report:
    """Everything that an experiment found, ready to be written.

    Args:
        command: that was given, as reports show it.
    """
    found = outcomes(measured)
    compared = findings(design.comparisons, found, design.data.protocol)
    # The paper's figures belong to its own split.
    with_paper = design.data.protocol == "paper"
    trainings = [
        Curve.of(each.system.name, [read_step_log(log) for log in each.logs]) for each in measured if each.logs
    ]
    headline = [outcome for outcome in found if outcome.answers == _first_answers(found, outcome.system)]
    pictures = [
        Picture(
            "accuracy",
            "HitRatio@1. Dots: measured here. Diamonds: the paper’s.",
            plots.accuracy(headline, with_paper=with_paper),
        )
    ]
    if trainings:
        pictures.append(Picture("curves", "Loss and p(tau) over the curriculum.", plots.curves(trainings)))
    if (timed := plots.speed(headline)) is not None:
        pictures.append(Picture("speed", "Accuracy against time.", timed))
    first = found[0].combined
    data = (
        f"{first.dataset}, protocol {design.data.protocol}, {design.asked.split} split: {first.n:,} users, "
        f"{first.num_candidates} candidates, redraws: {first.redraws}. Candidates {first.candidates_hash[:12]}. "
        f"LLM {design.settings['llm']}, prompt template {design.settings['template_name']}."
    )
    background = [data, RIGOUR, design.expected]
    if with_paper and first.dataset in PAPER_ROWS:
        background.append(PAPER_NOTE.format(rows=PAPER_ROWS[first.dataset]))
    background += _paid(measured)
    background += [NOT_ASKED.format(row=row) for row in design.not_asked]
    return Report(
        title=f"{design.title}: {first.dataset}",
        question=design.question,
        background=background,
        readings=[f"{finding.reading} ({finding.against_paper})." for finding in compared],
        tables=[
            systems_table(found, design.not_asked, with_paper=with_paper),
            findings_table(compared),
            costs_table(measured),
        ],
        pictures=pictures,
        made=Made(command, _devices(measured), package_versions()),
        document={
            "experiment": design.name,
            "expected": design.expected,
            "settings": dict(design.settings),
            "systems": [
                {
                    **outcome.as_document(),
                    "paper": _paper_document(outcome.paper, first.dataset) if with_paper else None,
                }
                for outcome in found
            ],
            "not_asked": [
                {"system": row, "paper": _paper_document(row, first.dataset) if with_paper else None}
                for row in design.not_asked
            ],
            "costs": [_cost_document(each) for each in measured],
            "comparisons": [finding.as_document() for finding in compared],
            "curves": [training.as_document() for training in trainings],
        },
    )


def systems_table(found: Sequence[Outcome], not_asked: Sequence[str] = (), *, with_paper: bool) -> Table:
    """One row for each system and way of asking, and for each of the paper that was not asked."""
    dataset = found[0].combined.dataset

    def in_paper(row: str | None) -> str:
        paper = paper_hit_ratio(row, dataset) if with_paper and row else None
        return f"{paper:.4f}" if paper is not None else "–"

    rows = []
    for outcome in found:
        document = outcome.as_document()
        spread = outcome.sd_seeds()
        time = outcome.combined.ms_per_user.get("p50")
        rows.append(
            [
                str(document["system"]),
                *(_cell(outcome.combined.metrics.get(name)) for name in METRICS),
                f"{len(outcome.by_seed)}" + (f" (sd {spread:.4f})" if spread is not None else ""),
                f"{time:.1f}" if time is not None else "–",
                in_paper(outcome.paper),
            ]
        )
    nothing = ["–"] * (len(METRICS) + 2)
    rows += [[f"{row} (not asked here)", *nothing, in_paper(row)] for row in not_asked]
    return Table("Systems", ["system", *METRICS.values(), "training seeds", "ms a user", "HR@1 in the paper"], rows)


def findings_table(compared: Sequence[Finding]) -> Table:
    """One row for each comparison, beside the paper's."""
    rows = [
        [
            f"{finding.comparison.better} − {finding.comparison.worse}",
            "{:+.4f} [{:+.4f}, {:+.4f}]".format(finding.difference.difference, *finding.difference.ci95),
            f"{finding.p_value:.4f}",
            f"{finding.seeds_agreeing} of {finding.seeds}",
            "shown" if finding.shown else "no difference shown",
            f"{finding.paper:+.4f}" if finding.paper is not None else "–",
            finding.against_paper,
        ]
        for finding in compared
    ]
    columns = ["comparison", "HR@1", "p (Holm)", "seeds agreeing", "reading", "in the paper", "order"]
    return Table("Comparisons", columns, rows)


def costs_table(measured: Sequence[Measured]) -> Table:
    """What training and asking took: one row for each system; times of trainings are their mean."""
    rows = []
    for each in measured:
        amounts = sorted({f"{cost.amount:,} {cost.unit}" for cost in each.trainings.values()})
        seconds = [cost.seconds for cost in each.trainings.values()]
        asked = [kept.seconds for evaluations in each.evaluations.values() for kept in evaluations]
        trained = [f"{len(seconds)}", ", ".join(amounts), f"{sum(seconds) / len(seconds):,.0f}"] if seconds else []
        rows.append([each.system.name, *(trained or ["–"] * 3), f"{len(asked)}", f"{sum(asked) / len(asked):,.0f}"])
    columns = ["system", "trainings", "of", "seconds each", "evaluations", "seconds each"]
    return Table("What it took, where it was first trained and measured", columns, rows)


def _cost_document(measured: Measured) -> dict[str, object]:
    return {
        "system": measured.system.name,
        "trainings": [{"part": name, **asdict(cost)} for name, cost in measured.trainings.items()],
        "evaluations": [
            {
                "answers": answers,
                "seconds": kept.seconds,
                "device": kept.device,
                "usage": dict(kept.evaluation.usage),
                "cost": subject.price(kept.evaluation),
            }
            for answers, evaluations in measured.evaluations.items()
            for subject, kept in zip(measured.system.subjects, evaluations, strict=True)
        ],
    }


def _paid(measured: Sequence[Measured]) -> Iterator[str]:
    """What was paid for, a sentence for each system whose tokens were counted."""
    for each in measured:
        for subject, kept in _with_subjects(each):
            if kept.evaluation.usage:
                usage, cost = Usage(**kept.evaluation.usage), subject.price(kept.evaluation)
                uncounted = f"; the server did not count those of {usage.uncounted:,}" if usage.uncounted else ""
                yield f"{each.system.name}: {usage}{uncounted}" + (f"; cost {cost:.4f}." if cost is not None else ".")


def _with_subjects(measured: Measured) -> Iterator[tuple[Subject, Kept]]:
    for evaluations in measured.evaluations.values():
        yield from zip(measured.system.subjects, evaluations, strict=True)


def _devices(measured: Sequence[Measured]) -> list[str]:
    """What computed the measurements."""
    return sorted({kept.device for each in measured for found in each.evaluations.values() for kept in found})


def _first_answers(found: Sequence[Outcome], system: str) -> str:
    return next(outcome.answers for outcome in found if outcome.system == system)


def _cell(estimate: Estimate | None) -> str:
    return "{:.4f} [{:.3f}, {:.3f}]".format(estimate.mean, *estimate.ci95) if estimate is not None else "–"


def _paper_document(row: str | None, dataset: str) -> dict[str, object] | None:
    hit_ratio = paper_hit_ratio(row, dataset) if row is not None else None
    if hit_ratio is None:
        return None
    valid = RQ1[row][dataset][0] if row in RQ1 else None
    return {"source": "the paper, not measured here", "hit_ratio_at_1": hit_ratio, "valid_ratio": valid}
