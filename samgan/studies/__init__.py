"""Experiments over many runs and classifiers."""

from samgan.studies.balance import balance
from samgan.studies.balance_documents import BalanceDocument
from samgan.studies.balance_page import format_balance
from samgan.studies.balance_plan import BalanceRequest, missing_images
from samgan.studies.claims import CLAIMS, CONFIRMED, HEADLINE, REFUTED, SIGN, UNDECIDED, judge_claims, rank_correlation
from samgan.studies.classifier import ARMS, CLASSICAL, WITH_SYNTHETIC, Arm, classify, predict, train_classifier
from samgan.studies.comparison import compare
from samgan.studies.downstream import utility
from samgan.studies.downstream_page import format_utility
from samgan.studies.sweep import finished, run_sweep
from samgan.studies.sweep_job import Job, Resources, Scoring
from samgan.studies.sweep_row import RowDocument, ScoredAt, ScoredBy, Trained, finished_rows
from samgan.studies.table2 import SUSTAINED_TFLOPS, PlannedRow, TableRequest, jobs_of, plan_rows, table2
from samgan.studies.table2_alarms import alarm_lines, alarm_summary
from samgan.studies.table2_lines import COLUMNS, Table, TableLine, rank_correlations, summarise
from samgan.studies.table2_rows import ROWS, choose_rows
from samgan.studies.table2_write import write_table
from samgan.trust.utility_document import COMPARED, UTILITY_SCORES

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
    "run_sweep",
    "summarise",
    "table2",
    "train_classifier",
    "utility",
    "write_table",
]
