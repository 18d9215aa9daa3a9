"""Relevance: which of the passages found are relevant, and whether any is (arXiv 2408.04887).

A dense search always returns k passages. :class:`CosineAdapter` maps the scores of a query to probabilities of relevance by a
curve that it chooses for the query, so that one threshold serves all queries; nothing is embedded again. The other models here
(:class:`Platt`, :class:`Isotonic`, :class:`RawScore`, :class:`FixedCount`, :class:`ScoreGap`, :class:`Judge`) are what it is to
be compared with, behind the same interface. :class:`LabelledScores` is what they learn from and are measured on.
"""

from rarebit.retrievers.relevance.adapter import CosineAdapter
from rarebit.retrievers.relevance.background import Background
from rarebit.retrievers.relevance.controls import FixedCount, Isotonic, Judge, Platt, RawScore, ScoreGap
from rarebit.retrievers.relevance.drift import Drift
from rarebit.retrievers.relevance.labelling import Feedback, from_feedback, from_judge, from_judgements, read_feedback
from rarebit.retrievers.relevance.labels import LabelledScores
from rarebit.retrievers.relevance.model import Asked, RelevanceModel, Verdict, model_from
from rarebit.retrievers.relevance.report import RelevanceReport
from rarebit.retrievers.relevance.score_source import ScoreSource
from rarebit.retrievers.relevance.thresholds import Target

__all__ = [
    "Asked",
    "Background",
    "CosineAdapter",
    "Drift",
    "Feedback",
    "FixedCount",
    "Isotonic",
    "Judge",
    "LabelledScores",
    "Platt",
    "RawScore",
    "RelevanceModel",
    "RelevanceReport",
    "ScoreGap",
    "ScoreSource",
    "Target",
    "Verdict",
    "from_feedback",
    "from_judge",
    "from_judgements",
    "model_from",
    "read_feedback",
]
