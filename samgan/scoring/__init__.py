"""Scores of generated images against real ones."""

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
from samgan.scoring.evaluate import (
    COLLAPSE,
    NO_COLLAPSE,
    check_inputs,
    evaluate,
    format_table,
    ms_ssim_gaps,
    quick_scores,
)
from samgan.scoring.report import write_report

__all__ = [
    "COLLAPSE",
    "MODE_COLLAPSE",
    "NO_COLLAPSE",
    "NO_MODE_COLLAPSE",
    "SCORING",
    "CollapseTest",
    "FeaturesUsed",
    "MeanOfPairs",
    "Scored",
    "Scores",
    "check_inputs",
    "evaluate",
    "format_table",
    "ms_ssim_gaps",
    "quick_scores",
    "write_report",
]
