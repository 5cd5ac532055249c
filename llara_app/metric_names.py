"""The metrics of an evaluation that are shown to people, and what they are called there."""

from __future__ import annotations

METRICS = {
    "hit_ratio_at_1": "HR@1",
    "hit_ratio_at_5": "HR@5",
    "ndcg_at_5": "NDCG@5",
    "mrr": "MRR",
    "valid_ratio": "ValidRatio",
}
