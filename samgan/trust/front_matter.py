"""The front matter of a card, which the Hugging Face Hub reads: kind of model, licence, scores with their floors."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from samgan.errors import SamganError, UsageError, one_line
from samgan.sampling import ShippedModel
from samgan.scoring import SCORES, Scores, floor_label
from samgan.trust.record import Record

LIBRARY, TASK, DRAFT = "samgan", "unconditional-image-generation", "draft"
_LICENCES = """
afl-3.0 agpl-3.0 apache-2.0 artistic-2.0 bigcode-openrail-m bigscience-bloom-rail-1.0 bigscience-openrail-m bsd
bsd-2-clause bsd-3-clause bsd-3-clause-clear bsl-1.0 c-uda cc cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-nc-2.0
cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0
cc-by-nd-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc0-1.0 cdla-permissive-1.0 cdla-permissive-2.0 cdla-sharing-1.0
creativeml-openrail-m ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 gfdl gpl gpl-2.0 gpl-3.0 isc lgpl lgpl-2.1
lgpl-3.0 lppl-1.3c mit mpl-2.0 ms-pl ncsa odbl odc-by ofl-1.1 openrail openrail++ osl-3.0 other pddl postgresql
unknown unlicense wtfpl zlib
"""
LICENCES = frozenset(_LICENCES.split())
"""What the Hub knows as a licence of a model; any other is "other", with its name.

Source: https://huggingface.co/docs/hub/repositories-licenses
"""
_DATA_SET = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)


def split_card(text: str, where: str) -> tuple[dict[str, Any], str]:
    """The front matter of a card, empty if it has none, and the Markdown below it.

    Raises:
        SamganError: The front matter is not an object in YAML.
    """
    found = re.match(r"\ufeff?---[ \t]*\n(.*?\n)?---[ \t]*(?:\n|$)", text, flags=re.DOTALL)
    if found is None:
        return {}, text
    try:
        own = yaml.safe_load(found[1] or "") or {}
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise SamganError(f"{where}: what stands between the lines --- is not YAML ({one_line(error)})") from None
    lists = (own.get("tags", []), own.get("datasets", [])) if isinstance(own, dict) else (None,)
    if not all(isinstance(entries, list) and all(isinstance(entry, str) for entry in entries) for entries in lists):
        raise SamganError(f"{where}: expected names with values, tags and datasets as lists, between the lines ---")
    return own, text[found.end() :]


def join_card(front: Mapping[str, Any], body: str) -> str:
    """The opposite of `split_card`."""
    return f"---\n{yaml.safe_dump(dict(front), sort_keys=False, allow_unicode=True, width=1000)}---\n{body}"


def front_matter(
    own: Mapping[str, Any], record: Record, shipped: ShippedModel | None, datasets: Sequence[str], draft: bool
) -> dict[str, Any]:
    """The front matter of a published card.

    Args:
        own: That of the card, from `samgan card` or a person; what is not said here stays.
        record: Of a model.
        shipped: The model that comes with samgan, if it is one: its scores are used if the record has none.
        datasets: Of the Hub, that the model was trained on; empty: those of the card, if any.
        draft: Whether the card is a draft.

    Raises:
        UsageError: A data set has no name as on the Hub, or the card says another licence.
    """
    datasets = datasets or own.get("datasets", ())
    if wrong := [name for name in datasets if not _DATA_SET.fullmatch(name)]:
        raise UsageError(f"--datasets {wrong[0]}: expected OWNER/NAME, as in a data set's address on the Hub")
    front: dict[str, Any] = {"library_name": LIBRARY, **_licence(record.licence, own), "pipeline_tag": TASK}
    tags = [tag for tag in (*own.get("tags", ()), LIBRARY) if tag != DRAFT]
    front["tags"] = [*dict.fromkeys(tags), *([DRAFT] if draft else [])]
    if datasets:
        front["datasets"] = list(datasets)
    front |= {name: value for name, value in own.items() if name not in front}
    if record.model and (results := _results(record, shipped, datasets)):
        config = record.model.config
        name = f"{config.preset}, {config.network.resolution} px"
        front["model-index"] = [{"name": name, "results": [results]}]
    return front


def _licence(licence: str, own: Mapping[str, Any]) -> dict[str, str]:
    """The entries of a licence: its identifier on the Hub, or "other" and its name."""
    found = str(own.get("license_name") or own.get("license") or "")
    if licence and found and _identifier(licence) != _identifier(found):
        raise UsageError(f"--licence {licence}: the card says {found}; change it there as well")
    name = _identifier(licence or found)
    if not name or name in LICENCES:
        return {"license": name} if name else {}
    return {"license": "other", "license_name": name}


def _identifier(licence: str) -> str:
    return re.sub(r"[^a-z0-9.+]+", "-", licence.lower()).strip("-")


def _results(record: Record, shipped: ShippedModel | None, datasets: Sequence[str]) -> dict[str, Any]:
    """The scores as an entry of the Hub's model-index, each followed by its floor; empty if there are none.

    Source: https://github.com/huggingface/hub-docs/blob/main/modelcard.md
    """
    scores, data = record.scores, {}
    if scores is not None:
        metrics = list(_metrics(scores))
        name = scores.data.name if scores.data else "unknown"
        data = {"split": scores.data.split} if scores.data and scores.data.split else {}
    elif shipped is not None:
        name, about = shipped.data.split(";")[0], {"compared": shipped.scored_with}
        metrics = [
            entry
            for score in shipped.scores
            for entry in _with_floor(score.label.lower().replace(" ", "_"), score.label, score.value, score.real, about)
        ]
    else:
        return {}
    return {
        "task": {"type": TASK, "name": "Unconditional image generation"},
        "dataset": {"type": datasets[0] if datasets else "unknown", "name": name, **data},  # type: a name on the Hub
        "metrics": metrics,
    }


def _metrics(scores: Scores) -> Iterator[dict[str, Any]]:
    real, made = scores.ms_ssim_real, scores.ms_ssim_generated
    if real and made:
        about = {"pairs": made.pairs, "interval_95": [_short(made.low), _short(made.high)]}
        yield from _with_floor("ms_ssim", "MS-SSIM of pairs", made.mean, real.mean, about)
    features = scores.features
    for name, score in SCORES.items():
        if found := scores.scores.get(name):
            about = {"images": scores.count}
            if score.needs_features and features:
                about |= {"features": features.name, "features_sha256": features.sha256}
            label, _ = score.shown(features)
            yield from _with_floor(name, label, found.value, found.floor, about, floor_label(scores))


def _with_floor(
    name: str, label: str, value: float, floor: float, about: dict[str, Any], called: str = "floor"
) -> Iterator[dict[str, Any]]:
    """A score, and after it the same score of real images against other real images."""
    yield {"type": name, "name": label, "value": _short(value), "args": dict(about)}
    yield {"type": f"{name}_floor", "name": f"{label}, real against real ({called})", "value": _short(floor)}


def _short(value: float) -> float:
    return float(f"{value:.4g}")
