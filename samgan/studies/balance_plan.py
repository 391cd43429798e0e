"""The request to `samgan balance`: it is checked, and becomes a plan."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from samgan import __version__
from samgan.config import Config, flatten
from samgan.data import PreparedSet
from samgan.errors import SamganError, UsageError
from samgan.files import PRIVATE, check_new_folder
from samgan.metrics.load_features import choose_features, default_features, say_features
from samgan.presets import PLUS, preset_config
from samgan.provenance import SET_FORMATS
from samgan.sampling import check_origin, open_model
from samgan.studies.balance_documents import METHODS, ClassPlan, Plan, UtilityPlan
from samgan.studies.balance_target import check_several, missing_images
from samgan.studies.downstream import check_held_out
from samgan.terminal import say
from samgan.trust import check_enough


@dataclass(frozen=True, kw_only=True)
class BalanceRequest:
    """What to make, with which models, and how to test it."""

    config: Config | None = None
    """Configuration of the models to train; default: samgan-plus at the set's size. The method sets the classes."""
    target: str = "equal"
    """As for `missing_images`."""
    classes: Sequence[str] = ()
    """Classes of the set; default: all."""
    method: str = "joint"
    """"joint": one model that is told the class and sees all classes equally often; "per-class": one model for each
    class that lacks images, of its images only; "fine-tuned": one model of all images, not told the class, and from it
    one for each class that lacks images."""
    runs: Mapping[str, Path] = field(default_factory=dict)
    """Models to use instead of training, themselves trained on this same set: by class, or under "" for all."""
    minutes: float = 60.0
    """Minutes of training in total, shared evenly among the models. With "fine-tuned", the first model gets half
    of them, and the others share the rest."""
    features: str | None = None
    """A name of docs/features.md or a module file, for scores, screening and audit; default: what is there."""
    features_file: Path | None = None
    """The weights of the named network, as for `samgan.metrics.load_features`."""
    confidence: float = 0.0
    """Also leave out an image if a classifier trained on the real images gives its class a lower probability than this;
    0: use no classifier."""
    file_format: str = "png"
    """Of synthetic images: one of `samgan.provenance.SET_FORMATS`."""
    originals: Path | None = None
    """The folder that the set was prepared from; its files become the real images of the balanced set. Default: the
    prepared images as PNG."""
    copies: bool = False
    """Copy the originals instead of linking to them."""
    seeds: int = 5
    """Classifiers per arm of the test of utility; 0 leaves the test out."""
    steps: int = 500
    """Steps of each classifier."""
    device: str = "auto"
    """Where networks run."""


def make_plan(data: PreparedSet, request: BalanceRequest, device: str) -> Plan:
    """Check a request against the set before anything is written, and make a plan of it.

    Raises:
        UsageError: The request is not possible.
        SamganError: There are too few training images of a class that lacks some, or too few held-out ones.
    """
    names = list(dict.fromkeys(request.classes)) or data.classes
    _check_options(data, request, names)
    data.verify()
    counts = {name: len(data.indices("train", [name])) for name in names}
    missing = missing_images(counts, request.target)
    lacking = [name for name, count in missing.items() if count]
    _check_runs(request.runs, data, lacking)
    for name in lacking:
        check_enough(data.groups(data.indices("train", [name])))
    if request.seeds:
        try:
            check_held_out(data, names)
        except SamganError as error:
            raise SamganError(f"{error}, or leave the test out with --seeds 0") from None
    if request.originals:
        _check_originals(request.originals, data, names)
    # Report now, not after an hour of training, if features that were named are not available.
    shape = data.images.shape[1:]
    extractor, why = choose_features(request.features, shape, features_file=request.features_file, device=device)
    say_features(extractor, why)
    features = str(request.features) if request.features else default_features(shape).name
    return Plan(
        samgan=__version__,
        data=data.used(names),
        target=request.target,
        classes={name: ClassPlan(counts[name], missing[name]) for name in names},
        method="given" if request.runs else request.method,
        runs={name: str(path) for name, path in request.runs.items()},
        minutes=float(request.minutes),
        config=(request.config or preset_config(PLUS, None, data.resolution)).to_dict(),
        features=features if extractor else None,
        confidence=float(request.confidence),
        file_format=request.file_format,
        originals=str(request.originals) if request.originals else None,
        copies=request.copies,
        utility=UtilityPlan(request.seeds, request.steps),
    )


def _check_options(data: PreparedSet, request: BalanceRequest, names: Sequence[str]) -> None:
    known = (("method", request.method, METHODS), ("format", request.file_format, SET_FORMATS))
    for flag, value, allowed in known:
        if value not in allowed:
            raise UsageError(f"--{flag} {value}: expected one of {', '.join(allowed)}")
    if not 0 <= request.confidence < 1:
        raise UsageError(f"--confidence {request.confidence:g}: expected 0 or more, and less than 1")
    if request.minutes <= 0:
        raise UsageError(f"--minutes {request.minutes:g}: expected more than 0")
    if request.seeds < 0 or request.seeds == 1:
        raise UsageError(f"--seeds {request.seeds}: expected 2 or more, or 0 for no test of utility")
    if request.steps < 1:
        raise UsageError(f"--steps {request.steps}: expected 1 or more")
    if request.file_format.endswith("16") and data.channels != 1:
        raise UsageError(
            f"--format {request.file_format}: expected a set with 1 channel, found {data.channels} in {data.path}; use "
            f"--format {request.file_format.removesuffix('16')}"
        )
    check_several(data, names)


def _check_runs(runs: Mapping[str, Path], data: PreparedSet, lacking: Sequence[str]) -> None:
    """Refuse models of other classes, and those that may have seen held-out patients."""
    if runs and set(runs) not in ({""}, set(lacking)):
        raise UsageError(
            f"--run: expected one model of all classes that was told the class, or CLASS=RUN for {', '.join(lacking)}"
        )
    for name in lacking if runs else ():
        path = runs.get(name) or runs[""]
        model = open_model(path)
        check_origin(model, path, data)
        learnt, told = model.config.data.classes, bool(model.config.network.num_classes)
        if name not in learnt or (len(learnt) > 1 and not told):
            untold = "" if told else ", without being told which is which"
            raise UsageError(
                f"{path} cannot make images of {name}: it was trained on {', '.join(learnt) or 'all classes'}{untold}; "
                "name another model with --run"
            )


def _check_originals(originals: Path, data: PreparedSet, names: Sequence[str]) -> None:
    """Refuse missing originals before the training, which takes long."""
    for index in data.indices(None, names):
        row = data.manifest[index]
        if not (originals / row.source).is_file():
            raise UsageError(
                f"--originals {originals}: {row.source} is missing; name the folder that the set was prepared from"
            )


def _check_links(out: Path) -> None:
    """Refuse links where none can be made before the training: Windows asks for a right that few users have."""
    with tempfile.TemporaryDirectory(dir=out) as folder:
        try:
            (Path(folder) / "link").symlink_to(out)
        except OSError as error:
            reason = error.strerror or str(error)
            raise UsageError(f"{out}: no links to --originals can be made there ({reason}); add --copies") from None


def keep_plan(plan: Plan, out: Path) -> None:
    """Write the plan, or compare it with the one in the folder.

    Raises:
        UsageError: The folder was begun with another plan, or cannot hold the links that the plan asks for.
        SamganError: The folder holds something else, or its plan cannot be read.
    """
    path = out / "plan.json"
    if not path.is_file():
        check_new_folder(out, "it was not begun by samgan balance: name a new folder")
        out.mkdir(PRIVATE, parents=True, exist_ok=True)  # the set will be in it
        if plan.originals and not plan.copies:
            _check_links(out)
        plan.write(path)
        return
    before, changed = Plan.read(path), ""
    try:  # an earlier version had fewer settings
        before = replace(before, config=Config.from_dict(before.config).to_dict())
    except (KeyError, UsageError) as error:
        raise SamganError(f"{path} belongs to another version of samgan ({error}); name a new folder") from None
    if before.features is None and plan.features is not None:
        before = replace(before, features=plan.features)
        changed = (
            f"samgan: {plan.features} features were not available when this folder was begun, and are now: the stages "
            "that are left use them"
        )
    for name, was, asked in _differences(before, plan):
        raise UsageError(
            f"{out} was begun with {name} {_short(was)}, and this command asks for {_short(asked)}; ask for the same "
            "again, or name a new folder"
        )
    if changed:
        say(changed)
        before.write(path)
    if before.utility != plan.utility:  # it is the last stage, and may be done again
        (out / "utility" / "utility.json").unlink(missing_ok=True)
        replace(before, utility=plan.utility).write(path)


OPTIONS = {"file_format": "--format", "runs": "--run"}
"""Options of the command that are not called as the field of the plan; settings have their own names."""


def _differences(before: Plan, plan: Plan) -> Iterator[tuple[str, Any, Any]]:
    """What differs between two plans, as it is called in a command; both values of each."""
    for name in (own.name for own in fields(Plan) if own.name not in ("samgan", "utility")):
        was, asked = (_comparable(name, getattr(one, name)) for one in (before, plan))
        if name == "config":
            own, others = flatten(was), flatten(asked)
            yield from ((key, own[key], others[key]) for key in own if own[key] != others[key])
        elif was != asked:
            yield OPTIONS.get(name, f"--{name.replace('_', '-')}"), was, asked


def _comparable(name: str, value: Any) -> Any:
    """For the data only what identifies it, since plans of earlier versions say less about it."""
    return (value.name, value.sha256) if name == "data" else value


def _short(value: Any) -> str:
    shown = str(value).lower() if isinstance(value, bool) else repr(value)
    return shown if len(shown) < 80 else f"{shown[:77]}..."
