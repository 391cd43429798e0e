"""How far a balanced set is: the stages of `samgan balance` with their results, and the command that continues it."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from samgan.config import Config, flatten
from samgan.errors import SamganError, UsageError
from samgan.metrics.weights_here import features_here
from samgan.scoring.documents import Scores
from samgan.studies.balance_documents import BalanceDocument, Plan, TrainingDocument
from samgan.studies.balance_words import HEADER, describe_plan, sentences, table_rows
from samgan.studies.downstream_page import utility_sentences
from samgan.studio.catalogue import Catalogue
from samgan.studio.places import Root
from samgan.studio.view import link
from samgan.trust.documents import AuditDocument, ScreeningDocument
from samgan.trust.utility_document import UtilityDocument

State = Literal["done", "now", "waiting", "left out", "damaged"]


@dataclass(frozen=True)
class Line:
    """A part of a stage's result."""

    text: str
    address: str = ""
    """The page that shows more of it."""
    warning: bool = False


@dataclass(frozen=True)
class Stage:
    """One stage."""

    name: str
    does: str
    state: State
    lines: tuple[Line, ...] = ()
    header: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()


class Study:
    """A folder of `samgan balance`, read by its documents."""

    def __init__(self, catalogue: Catalogue, place: str, plan: Plan) -> None:
        self.catalogue, self.place, self.plan = catalogue, place, plan
        self.names = list(plan.classes)
        self.end = catalogue.document(BalanceDocument, place, "balance.json").document

    def stages(self, running: bool) -> list[Stage]:
        """All stages in their order; the first that is not done is the present one if the command is running."""
        makers: tuple[Callable[[], Stage], ...] = (
            *(self._plan, self._training, self._scores, self._screening),
            *(self._audits, self._set, self._utility, self._report),
        )
        found = [make() for make in makers]
        for number, stage in enumerate(found):
            if running and stage.state == "waiting":
                found[number] = replace(stage, state="now")
                break
        return found

    def _plan(self) -> Stage:
        counts = tuple((name, f"{each.real:,}", f"{each.missing:,}") for name, each in self.plan.classes.items())
        lines = tuple(Line(f"{name}: {value}") for name, value in describe_plan(self.plan))
        return Stage("Plan", "what is made, and how", "done", lines, ("class", "training images", "to make"), counts)

    def _training(self) -> Stage:
        found = self.catalogue.document(TrainingDocument, self.place, "training.json")
        name, does = "Models", "one that is told the class, or one for each class that lacks images"
        if found.document is None:
            runs = sorted(self._folder("models"))
            lines = [Line(f"models/{run}", link("/train", run=self._inside(f"models/{run}"))) for run in runs]
            return self._missing(name, does, found.problem, "training.json", tuple(lines))
        made: list[Line] = []
        for own, model in found.document.models.items():
            path = "" if model.given else link("/train", run=self._inside(model.path))
            made.append(Line(f"{own}: {Path(model.path).name}, sha256 {model.sha256[:12]}", path))
            made += [Line(note, warning=True) for note in model.notes]
        return Stage(name, does, "done", tuple(dict.fromkeys(made)))

    def _scores(self) -> Stage:
        name, does = "Scores", "of each model's images against real ones of the class, beside their floor"
        return self._by_class(name, does, "scores", self._score_line)

    def _score_line(self, place: str) -> tuple[str, bool] | str:
        found = self.catalogue.document(Scores, place, "scores.json")
        if found.document is None:
            return found.problem
        test = found.document.mode_collapse
        verdict = test.verdict if test else "not tested for mode collapse"
        distance = found.document.scores.get("frechet")
        words = f", Frechet distance {distance.value:.3f} (floor {distance.floor:.3f})" if distance else ""
        return f"{verdict}{words}", bool(test and test.verdict == "mode collapse")

    def _screening(self) -> Stage:
        found = self.catalogue.document(ScreeningDocument, self.place, "screening.json")
        name, does = "Screening", "candidates that are too near to a training image, or like another, are left out"
        if found.document is None:
            return self._missing(name, does, found.problem, "screening.json")
        lines = []
        for own, screened in found.document.classes.items():
            left_out = ", ".join(f"{count:,} {reason}" for reason, count in screened.left_out.items()) or "none"
            words = f"{own}: {screened.kept:,} of {screened.candidates:,} kept, {screened.missing:,} wanted"
            lines.append(Line(f"{words}; left out: {left_out}", warning=screened.kept < screened.missing))
        return Stage(name, does, "done", tuple(lines))

    def _audits(self) -> Stage:
        name, does = "Audit", "signs that the models repeat training images, before screening"
        return self._by_class(name, does, "audit", self._audit_line)

    def _audit_line(self, place: str) -> tuple[str, bool] | str:
        found = self.catalogue.document(AuditDocument, place, "audit.json")
        if found.document is None:
            return found.problem
        signs = found.document.signs
        if not signs and found.document.missed:
            return "could not have found copies", True
        return (f"signs of memorisation: {', '.join(signs)}" if signs else "no sign of memorisation"), bool(signs)

    def _set(self) -> Stage:
        does = "real and synthetic images in one folder, with a list of where each is from"
        done = "manifest.json" in self._folder("set")
        counts = self.end.counts if self.end else {}
        rows = tuple((name, f"{each.real:,}", f"{each.synthetic:,}") for name, each in counts.items())
        lines = (Line(self._inside("set")),) if done else ()
        return Stage("Set", does, "done" if done else "waiting", lines, ("class", "real", "synthetic"), rows)

    def _utility(self) -> Stage:
        name, does = "Utility", "whether the images help a classifier on patients that were held out"
        if not self.plan.utility.seeds:
            return Stage(name, does, "left out", (Line("It was not asked for."),))
        found = self.catalogue.document(UtilityDocument, self._inside("utility"), "utility.json")
        if found.document is None:
            return self._missing(name, does, found.problem, "utility/utility.json")
        return Stage(name, does, "done", tuple(map(Line, utility_sentences(found.document))))

    def _report(self) -> Stage:
        does = "everything on one page, report.html, and cards"
        if self.end is None:
            found = self.catalogue.document(BalanceDocument, self.place, "balance.json")
            return self._missing("Report", does, found.problem, "balance.json")
        lines = tuple(map(Line, sentences(self.end)))
        return Stage("Report", does, "done", lines, HEADER, tuple(table_rows(self.end)))

    def _by_class(self, name: str, does: str, kind: str, read: Callable[[str], tuple[str, bool] | str]) -> Stage:
        """A stage with a document for each class that lacks images."""
        lines, there, damaged = [], 0, False
        for own in self.plan.missing:
            place = self._inside(f"{kind}/class-{self.names.index(own)}")
            found = read(place)
            if isinstance(found, str):
                if f"{kind}.json" in self._folder(f"{kind}/class-{self.names.index(own)}"):
                    damaged = True
                    lines.append(Line(found, warning=True))
                continue
            there += 1
            lines.append(Line(f"{own}: {found[0]}", link(f"/{kind}", at=place), found[1]))
        if damaged:
            return Stage(name, does, "damaged", tuple(lines))
        if there < len(self.plan.missing) and self.end:
            return Stage(name, does, "left out", (*lines, *self._skipped(name)))
        return Stage(name, does, "done" if there == len(self.plan.missing) else "waiting", tuple(lines))

    def _missing(self, name: str, does: str, problem: str, file: str, lines: tuple[Line, ...] = ()) -> Stage:
        """A stage whose document cannot be had: it is damaged, was left out, or is not there yet."""
        folder, _, own = file.rpartition("/")
        if own in self._folder(folder):
            return Stage(name, does, "damaged", (Line(problem, warning=True),))
        if self.end:
            return Stage(name, does, "left out", self._skipped(name))
        return Stage(name, does, "waiting", lines)

    def _inside(self, name: str) -> str:
        return Root.inside(self.place, name)

    def _skipped(self, name: str) -> tuple[Line, ...]:
        """Why parts of a stage were left out."""
        skipped = self.end.skipped if self.end else ()
        return tuple(Line(f"{each.what}: {each.reason}") for each in skipped if each.what.startswith(name.lower()))

    def _folder(self, name: str) -> set[str]:
        """Names in a folder of the study; none if there is no such folder."""
        path = self.catalogue.root.find(self._inside(name) if name else self.place)
        try:
            return {each.name for each in path.iterdir() if not each.name.startswith(".")}
        except OSError:
            return set()


def words_to_continue(root: Root, plan: Plan, data: Path, out: Path) -> list[str]:
    """The command that goes on with a study, which must ask for the same as the one that began it.

    Raises:
        SamganError: The plan is of another version, or names something that no form of the studio may name.
        Outside: It names a folder that is not below the root, or from which a link leads out of it.
    """
    for path in (plan.originals, *plan.runs.values()):
        if path and not os.path.isabs(path):  # it could be another option, or a model of a hub
            raise SamganError(f"plan.json names {path}: expected a whole path, from / on; use the command line")
        if path:
            root.check_tree(Path(path))
    # This file may be of anybody: a module of features runs code, and a name with a dash would be another option.
    if plan.features not in (None, *features_here()):
        raise SamganError(
            "plan.json names features whose weights are not on this machine, or a file of them: use the command line"
        )
    if any(name.startswith("-") for name in (*plan.classes, *plan.runs)):
        raise SamganError("plan.json names classes that the studio does not hand on: use the command line")
    try:
        tree = Config.from_dict(plan.config).to_dict()
    except (KeyError, UsageError) as error:
        raise SamganError(f"plan.json belongs to another version of samgan ({error}); name a new folder") from None
    config = {key: value for key, value in flatten(tree).items() if "." in key}
    if config["network.vision_file"] is not None:
        raise SamganError("plan.json names a file of weights, which the studio does not hand on: use the command line")
    words = ["balance", str(data), str(out), f"--target={plan.target}", f"--minutes={plan.minutes!r}"]
    words += [f"--confidence={plan.confidence!r}", f"--format={plan.file_format}", f"--preset={tree['preset']}"]
    words += [f"--seeds={plan.utility.seeds}", f"--steps={plan.utility.steps}"]
    words += [f"--features={plan.features}"] if plan.features else []
    words += [f"--originals={plan.originals}"] if plan.originals else []
    words += ["--copies"] if plan.copies else []
    words += [f"--method={plan.method}"] if not plan.runs else []
    words += [f"--{key}={json.dumps(value)}" for key, value in config.items()]
    words += ["--run", *(f"{name}={path}" if name else path for name, path in plan.runs.items())] if plan.runs else []
    return [*words, "--classes", *plan.classes]
