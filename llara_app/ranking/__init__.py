"""Ranking candidates by their likelihood under the LLM; :mod:`llara_app.ranking.torch_ranker` needs torch."""

from llara_app.ranking.ranker import CandidateScores, Ranker

__all__ = ["CandidateScores", "Ranker"]
