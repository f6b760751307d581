"""Predictions against annotation: exact-match scores, benchmark averages, thresholds."""

from gliner_fast.evaluation.results import Evaluation, Result, evaluate, evaluate_like_gliner
from gliner_fast.evaluation.scores import Score

__all__ = ["Evaluation", "Result", "Score", "evaluate", "evaluate_like_gliner"]
