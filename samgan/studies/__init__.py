"""Experiments over many runs and classifiers."""

from typing import TYPE_CHECKING

from samgan.later import import_when_used
from samgan.studies.balance_advice import Advice, advise, short_advice
from samgan.studies.balance_documents import BalanceDocument
from samgan.studies.balance_target import missing_images
from samgan.studies.balance_words import format_balance
from samgan.studies.downstream_page import format_utility
from samgan.studies.table2_document import Table
from samgan.studies.utility_map import UtilityMap, read_utility_map
from samgan.trust.utility_document import COMPARED, UTILITY_SCORES

if TYPE_CHECKING:
    from samgan.studies.balance_plan import BalanceRequest
    from samgan.studies.balancing import balance
    from samgan.studies.claims import (
        CLAIMS,
        CONFIRMED,
        HEADLINE,
        REFUTED,
        SIGN,
        UNDECIDED,
        judge_claims,
        rank_correlation,
    )
    from samgan.studies.classifier import ARMS, CLASSICAL, WITH_SYNTHETIC, Arm, classify, predict, train_classifier
    from samgan.studies.comparison import compare
    from samgan.studies.downstream import utility
    from samgan.studies.sweep import finished, run_sweep
    from samgan.studies.sweep_job import Job, Resources, Scoring
    from samgan.studies.sweep_row import RowDocument, ScoredAt, ScoredBy, Trained, finished_rows
    from samgan.studies.table2_alarms import alarm_lines, alarm_summary
    from samgan.studies.table2_lines import COLUMNS, TableLine, rank_correlations, summarise
    from samgan.studies.table2_rows import ROWS, choose_rows
    from samgan.studies.table2_study import (
        SUSTAINED_TFLOPS,
        PlannedRow,
        TableRequest,
        jobs_of,
        plan_rows,
        slurm_script,
        table2,
    )
    from samgan.studies.table2_write import write_table

__all__ = [
    "ARMS",
    "CLAIMS",
    "CLASSICAL",
    "COLUMNS",
    "COMPARED",
    "CONFIRMED",
    "HEADLINE",
    "REFUTED",
    "ROWS",
    "SIGN",
    "SUSTAINED_TFLOPS",
    "UNDECIDED",
    "UTILITY_SCORES",
    "WITH_SYNTHETIC",
    "Advice",
    "Arm",
    "BalanceDocument",
    "BalanceRequest",
    "Job",
    "PlannedRow",
    "Resources",
    "RowDocument",
    "ScoredAt",
    "ScoredBy",
    "Scoring",
    "Table",
    "TableLine",
    "TableRequest",
    "Trained",
    "UtilityMap",
    "advise",
    "alarm_lines",
    "alarm_summary",
    "balance",
    "choose_rows",
    "classify",
    "compare",
    "finished",
    "finished_rows",
    "format_balance",
    "format_utility",
    "jobs_of",
    "judge_claims",
    "missing_images",
    "plan_rows",
    "predict",
    "rank_correlation",
    "rank_correlations",
    "read_utility_map",
    "run_sweep",
    "short_advice",
    "slurm_script",
    "summarise",
    "table2",
    "train_classifier",
    "utility",
    "write_table",
]
# What runs a study needs torch; a look at what it found does not.
__getattr__ = import_when_used(
    __name__,
    (
        "balancing",
        "balance_plan",
        "claims",
        "classifier",
        "comparison",
        "downstream",
        "sweep",
        "sweep_job",
        "sweep_row",
        "table2_study",
        "table2_alarms",
        "table2_lines",
        "table2_rows",
        "table2_write",
    ),
    __all__,
)
