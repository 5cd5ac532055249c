"""Reports on one bundle: what its accuracy rests on, and how it does on the whole catalogue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from train.experiments import plots
from train.experiments.behaviour import AS_IT_IS, Finding
from train.experiments.report_content import Made, Picture, Report, Table
from train.experiments.retrieve import METRICS, Retrieval
from train.metrics import Estimate, Evaluation, PairedDifference

RIGOUR = (
    "Intervals are 95 % bootstrap intervals over users. A difference is claimed only where its paired interval "
    "excludes zero and its p-value, corrected for all comparisons of this report (Holm), is below .05."
)


def behaviour_report(
    bundle: str, settings: Mapping[str, object], as_it_is: Evaluation, findings: Sequence[Finding], made: Made
) -> Report:
    """What a bundle's accuracy rests on."""
    rows = [[AS_IT_IS, _estimate(as_it_is.metrics["hit_ratio_at_1"]), "", "", ""]]
    rows += [
        [
            finding.change.name,
            _estimate(finding.evaluation.metrics["hit_ratio_at_1"]),
            _difference(finding.difference),
            f"{finding.p_value:.4f}",
            finding.reading,
        ]
        for finding in findings
    ]
    effects = [(finding.change.name, finding.difference) for finding in findings]
    return Report(
        title=f"What {bundle} rests on",
        question="Does it use behaviour tokens, titles and order? Each is taken away, the rest stays as it is.",
        background=[
            f"{as_it_is.dataset}: {as_it_is.n:,} users, {as_it_is.num_candidates} candidates, "
            f"redraws: {as_it_is.redraws}, candidates {as_it_is.candidates_hash[:12]}.",
            RIGOUR,
        ],
        readings=[finding.reading for finding in findings],
        tables=[Table("Changes", ["change", "HR@1", "difference", "p (Holm)", "reading"], rows)],
        pictures=[
            Picture(
                "changes", "Change of HitRatio@1.", plots.differences(effects, "HitRatio@1, changed minus as it is")
            )
        ],
        made=made,
        document={
            "experiment": "behaviour",
            "bundle": bundle,
            "settings": dict(settings),
            "as_it_is": as_it_is.as_document(),
            "findings": [finding.as_document() for finding in findings],
        },
    )


def retrieval_report(
    bundle: str, encoder: str, settings: Mapping[str, object], retrieval: Retrieval, made: Made
) -> Report:
    """How a bundle does when nothing but the history is given."""
    systems = {f"{encoder} alone": retrieval.encoder, f"{encoder}, ranked by {bundle}": retrieval.llm}
    gains = retrieval.gains()
    return Report(
        title=f"{bundle} on the whole catalogue",
        question="The encoder proposes, the LLM ranks: is its order better than the encoder's?",
        background=[
            f"{retrieval.llm.dataset}: {retrieval.llm.n:,} users, {retrieval.proposed} proposals out of the whole "
            f"catalogue. The next item is among them for {100 * retrieval.found:.1f} % of users; for the others "
            "the LLM cannot be right.",
            f"The LLM orders {retrieval.window} proposals at a time, as many as it was trained on, from the last to "
            "the first; each window shares half of its proposals with the one before (sliding windows, Sun et al., "
            "2023)."
            if retrieval.proposed > retrieval.window
            else "The LLM orders all proposals at once.",
            RIGOUR,
        ],
        readings=[gain.reading for gain in gains],
        tables=[
            Table(
                "Orders",
                ["order", *METRICS.values()],
                [[name, *(_estimate(each.metrics[metric]) for metric in METRICS)] for name, each in systems.items()],
            ),
            Table(
                "The LLM's order minus the encoder's",
                ["metric", "difference", "p (Holm)"],
                [[METRICS[gain.metric], _difference(gain.difference), f"{gain.p_value:.4f}"] for gain in gains],
            ),
        ],
        pictures=[
            Picture(
                "gains",
                "The LLM's order minus the encoder's.",
                plots.differences([(METRICS[gain.metric], gain.difference) for gain in gains], "difference"),
            )
        ],
        made=made,
        document={
            "experiment": "retrieve",
            "bundle": bundle,
            "settings": dict(settings),
            "proposed": retrieval.proposed,
            "window": retrieval.window,
            "found": retrieval.found,
            "systems": [{"system": name, **each.as_document()} for name, each in systems.items()],
            "gains": [gain.as_document() for gain in gains],
        },
    )


def _estimate(estimate: Estimate) -> str:
    return "{:.4f} [{:.3f}, {:.3f}]".format(estimate.mean, *estimate.ci95)


def _difference(difference: PairedDifference) -> str:
    return "{:+.4f} [{:+.4f}, {:+.4f}]".format(difference.difference, *difference.ci95)
