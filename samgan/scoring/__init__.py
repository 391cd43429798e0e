"""Scores of generated images against real ones."""

from typing import TYPE_CHECKING

from samgan.later import import_when_used
from samgan.scoring.documents import (
    MODE_COLLAPSE,
    NO_MODE_COLLAPSE,
    SCORING,
    CollapseTest,
    FeaturesUsed,
    MeanOfPairs,
    Scored,
    Scores,
)
from samgan.scoring.registry import SCORES, Score
from samgan.scoring.table import floor_label, format_table, number, score_rows

if TYPE_CHECKING:
    from samgan.scoring.evaluation import evaluate, scores_file
    from samgan.scoring.images import Classes, check_inputs, most_images, score_images
    from samgan.scoring.quick import CHOOSES_BEST, QuickScorer, QuickScores, ms_ssim_gaps, quick_scores
    from samgan.scoring.report import curve_charts, write_report
    from samgan.scoring.sets import Sets

__all__ = [
    "CHOOSES_BEST",
    "MODE_COLLAPSE",
    "NO_MODE_COLLAPSE",
    "SCORES",
    "SCORING",
    "Classes",
    "CollapseTest",
    "FeaturesUsed",
    "MeanOfPairs",
    "QuickScorer",
    "QuickScores",
    "Score",
    "Scored",
    "Scores",
    "Sets",
    "check_inputs",
    "curve_charts",
    "evaluate",
    "floor_label",
    "format_table",
    "most_images",
    "ms_ssim_gaps",
    "number",
    "quick_scores",
    "score_images",
    "score_rows",
    "scores_file",
    "write_report",
]
# What takes scores needs torch; a look at them does not.
__getattr__ = import_when_used(
    __name__,
    (
        "evaluation",
        "images",
        "quick",
        "report",
        "sets",
    ),
    __all__,
)
