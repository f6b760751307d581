"""Predictions against annotation: exact-match scores, benchmark averages, thresholds."""

import sys
from importlib import import_module

from gliner_fast.evaluation.relation_scores import evaluate_relations
from gliner_fast.evaluation.results import Evaluation, Result, evaluate, evaluate_like_gliner
from gliner_fast.evaluation.scores import Score

if __name__ != "gliner_fast.evaluation":  # but gliner.evaluation: see `gliner_fast.config`
    sys.modules[__name__] = import_module("gliner_fast.evaluation")

__all__ = ["Evaluation", "Result", "Score", "evaluate", "evaluate_like_gliner", "evaluate_relations"]
