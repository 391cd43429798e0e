"""Checklists of medical AI, and which of their items the record answers."""

from collections.abc import Callable
from typing import NamedTuple

from samgan.trust import answers
from samgan.trust.record import Record


class Item(NamedTuple):
    """One item of a checklist."""

    number: str
    asks: str
    answer: Callable[[Record], str] | None = None
    """From the record; without an answer the item stays open."""


class Checklist(NamedTuple):
    """A checklist, and where it comes from."""

    items: tuple[Item, ...]
    note: str


CLAIM = (
    Item("1", "kind of AI method, in the title", answers.category),
    Item("2", "structured summary"),
    Item("3", "background, intended use and clinical role"),
    Item("4", "aims and hypotheses"),
    Item("5", "prospective or retrospective"),
    Item("6", "goal of the study", answers.goal),
    Item("7", "where the data come from", answers.source),
    Item("8", "inclusion and exclusion criteria (here: which files were left out)", answers.exclusions),
    Item("9", "preprocessing", answers.preprocessing),
    Item("10", "how subsets were chosen", answers.subset),
    Item("11", "de-identification"),
    Item("12", "missing data"),
    Item("13", "how images were acquired"),
    Item("14", "reference standard: how it was obtained"),
    Item("15", "reference standard: why this one"),
    Item("16", "who annotated"),
    Item("17", "how the test set was annotated"),
    Item("18", "variability between and within raters"),
    Item("19", "how data were assigned to partitions", answers.partitions),
    Item("20", "level at which partitions are disjoint", answers.split_level),
    Item("21", "intended sample size"),
    Item("22", "the model", answers.network),
    Item("23", "software", answers.software),
    Item("24", "initial parameters", answers.initial_weights),
    Item("25", "training", answers.training),
    Item("26", "how the final model was chosen", answers.selection),
    Item("27", "ensembles", answers.ensembles),
    Item("28", "metrics", answers.metrics),
    Item("29", "uncertainty", answers.uncertainty),
    Item("30", "robustness"),
    Item("31", "explainability"),
    Item("32", "tests on internal data", answers.internal_tests),
    Item("33", "tests on external data"),
    Item("34", "registration of clinical trials"),
    Item("35", "numbers included and excluded", answers.numbers),
    Item("36", "demographic and clinical characteristics of partitions"),
    Item("37", "performance with uncertainty", answers.results),
    Item("38", "diagnostic performance and its precision", answers.utility),
    Item("39", "analysis of failures"),
    Item("40", "limitations", answers.limits),
    Item("41", "implications for practice"),
    Item("42", "full protocol or technical details", answers.protocol),
    Item("43", "availability of software, model and data", answers.availability),
    Item("44", "funding"),
)
MI_CLAIM_GEN = (
    Item("study design", "clinical question, and how its answer would be used"),
    Item("study design", "cohort: how it was selected", answers.source),
    Item("study design", "whom the cohort represents"),
    Item("study design", "baselines for comparison", answers.baselines),
    Item("data and resources", "independence of training and test data", answers.split_level),
    Item("data and resources", "pre-trained models and their training data", answers.initial_weights),
    Item("data and resources", "architecture and optimisation", answers.training),
    Item("evaluation", "metrics of quality and diversity", answers.results),
    Item("evaluation", "benefit for the task, on held-out patients", answers.utility),
    Item("evaluation", "judgement by clinicians", answers.readers),
    Item("examination", "memorisation and privacy", answers.memorisation),
    Item("examination", "bias among groups of patients"),
    Item("examination", "known failures", answers.limits),
    Item("reproducibility", "code, environment and seeds", answers.software),
    Item("reproducibility", "model and its licence", answers.availability),
    Item("ethics", "approval, consent, and terms of the data"),
)
CHECKLISTS = {
    "CLAIM": Checklist(
        CLAIM,
        "Item numbers are those of the CLAIM 2024 update (Tejani et al., Radiology: Artificial Intelligence 2024, "
        "doi 10.1148/ryai.240300); the wording is shorter and our own. Compare with the original before you submit.",
    ),
    "MI-CLAIM-GEN": Checklist(
        MI_CLAIM_GEN,
        "Topics are those of MI-CLAIM-GEN (Miao et al., arXiv:2403.02558), in our own words and order. The original "
        "table says more.",
    ),
}
