"""samgan: self-attention guided multi-scale gradient GANs for radiographs (SAMGAN / MSG-SAGAN).

Each step of the command line is a function here: `samgan.prepare`, `samgan.train`, `samgan.sample` and so on.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from samgan.api import export, sample, verify
    from samgan.config import Config
    from samgan.data import PreparedSet
    from samgan.data.inspection import inspect
    from samgan.data.options import LabelOptions
    from samgan.data.prepare import prepare
    from samgan.data.subset import subset
    from samgan.demonstration import demo
    from samgan.errors import SamganError, UsageError
    from samgan.presets import preset_config
    from samgan.runs import Run
    from samgan.scoring.evaluation import evaluate
    from samgan.studies.balance_advice import advise
    from samgan.studies.balance_plan import BalanceRequest
    from samgan.studies.balancing import balance
    from samgan.studies.downstream import utility
    from samgan.studies.table2_study import TableRequest, table2
    from samgan.training.run import train
    from samgan.trust.auditing import audit
    from samgan.trust.publishing import publish

__version__ = "0.1.0"

# Where each public name is. Nothing is imported before it is used: torch takes seconds, `samgan --help` should not.
_PUBLIC = {
    "BalanceRequest": "samgan.studies.BalanceRequest",
    "Config": "samgan.config.Config",
    "LabelOptions": "samgan.data.LabelOptions",
    "PreparedSet": "samgan.data.PreparedSet",
    "Run": "samgan.runs.Run",
    "SamganError": "samgan.errors.SamganError",
    "TableRequest": "samgan.studies.TableRequest",
    "UsageError": "samgan.errors.UsageError",
    "advise": "samgan.studies.advise",
    "audit": "samgan.trust.audit",
    "balance": "samgan.studies.balance",
    "demo": "samgan.demonstration.demo",
    "evaluate": "samgan.scoring.evaluate",
    "export": "samgan.api.export",
    "inspect": "samgan.data.inspection.inspect",
    "prepare": "samgan.data.prepare",
    "preset_config": "samgan.presets.preset_config",
    "publish": "samgan.trust.publish",
    "sample": "samgan.api.sample",
    "subset": "samgan.data.subset.subset",
    "table2": "samgan.studies.table2",
    "train": "samgan.training.run.train",
    "utility": "samgan.studies.utility",
    "verify": "samgan.api.verify",
}
__all__ = [
    "BalanceRequest",
    "Config",
    "LabelOptions",
    "PreparedSet",
    "Run",
    "SamganError",
    "TableRequest",
    "UsageError",
    "advise",
    "audit",
    "balance",
    "demo",
    "evaluate",
    "export",
    "inspect",
    "prepare",
    "preset_config",
    "publish",
    "sample",
    "subset",
    "table2",
    "train",
    "utility",
    "verify",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, own = _PUBLIC[name].rpartition(".")
    return getattr(importlib.import_module(module), own)


def __dir__() -> list[str]:
    """Public names, also those that are not imported yet."""
    return sorted({*globals(), *__all__})
