"""What a setting may be: one record that checks a value, describes it in words and writes it as JSON Schema.

The tree of settings itself is in `samgan.config`.
"""

import dataclasses
import functools
import types
from collections.abc import Mapping
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from samgan.errors import UsageError

Decides = Literal["numbers", "length", "records", "nothing"]
"""What a setting decides: the numbers that training computes, only how long it is, only what is logged and kept, or
nothing at all (a label)."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What a setting may be beyond its type. Of a list, every item has these limits; null has none."""

    minimum: int | float | None = None
    maximum: int | float | None = None
    above: int | float | None = None
    """The value must be larger than this."""
    below: int | float | None = None
    """The value must be smaller than this."""
    excluded: int | None = None
    choices: tuple[int, ...] = ()
    unique: bool = False
    """Whether a list may hold a value only once."""

    def allow(self, value: Any) -> bool:
        """Whether a value of the right type is within the limits."""
        if isinstance(value, tuple):
            return all(map(self.allow, value)) and not (self.unique and len(set(value)) < len(value))
        if value is None or isinstance(value, str):
            return True
        return (
            (self.minimum is None or value >= self.minimum)
            and (self.maximum is None or value <= self.maximum)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
            and value != self.excluded
            and (not self.choices or value in self.choices)
        )

    def words(self) -> str:
        """The limits of a number, to be put after its type: " from 2 to 65536"; empty where there are none."""
        parts = []
        if self.above is not None:
            parts.append(f" above {_number(self.above)}")
        if self.minimum is not None:
            bounded = self.maximum is not None or self.below is not None
            parts.append(f" from {_number(self.minimum)}" if bounded else f", {_number(self.minimum)} or more")
        if self.maximum is not None:
            parts.append(f" {'up to' if self.minimum is None else 'to'} {_number(self.maximum)}")
        if self.below is not None:
            parts.append(f" to less than {_number(self.below)}")
        if self.excluded is not None:
            parts.append(f", but not {self.excluded}")
        return "".join(parts)

    def schema(self) -> dict[str, Any]:
        """The limits of a number as keywords of JSON Schema."""
        keywords = {
            "minimum": self.minimum,
            "maximum": self.maximum,
            "exclusiveMinimum": self.above,
            "exclusiveMaximum": self.below,
            "not": None if self.excluded is None else {"const": self.excluded},
            "enum": list(self.choices) or None,
        }
        return {name: value for name, value in keywords.items() if value is not None}


def setting(default: Any, help_text: str, *, decides: Decides = "numbers", **limits: Any) -> Any:
    """A dataclass field that is a setting.

    Args:
        default: Its default.
        help_text: What it is, for a reader of `--help`.
        decides: What another value changes.
        limits: Of `Limits`.
    """
    metadata = {"help": help_text, "decides": decides, "limits": Limits(**limits)}
    return dataclasses.field(default=default, metadata=metadata)


def checked(value: Any, hint: Any, limits: Limits, key: str) -> Any:
    """`value` as the type `hint` asks for; the only conversions are int to float and list to tuple.

    Raises:
        UsageError: Another type, or a value outside the limits.
    """
    try:
        converted = _converted(value, hint)
        if limits.allow(converted):
            return converted
    except TypeError:
        pass
    raise UsageError(f"{key}: {value!r} is not allowed; expected {describe(hint, limits)}")


def check_section(section: Any, name: str) -> None:
    """Check each setting of a section by itself; `name` is that of the section, for messages."""
    hints = hints_of(section.__class__)
    for field in dataclasses.fields(section):
        value = getattr(section, field.name)
        checked(value, hints[field.name], field.metadata["limits"], f"{name}.{field.name}")


@functools.cache
def hints_of(section: type) -> dict[str, Any]:
    """The type of each setting of a section, by name."""
    return get_type_hints(section)


def _converted(value: Any, hint: Any) -> Any:
    """`value` as the type `hint` asks for; a TypeError where it is of another type."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        if isinstance(value, str) and value in arguments:
            return value
    elif origin in (Union, types.UnionType):
        return None if value is None else _converted(value, arguments[0])
    elif origin is tuple:
        if arguments[-1] is Ellipsis and not isinstance(value, list | tuple | Mapping | None):
            value = () if value == "" else (value,)  # one value is a list of one, an empty text (--KEY=) of none
        if isinstance(value, list | tuple) and (arguments[-1] is Ellipsis or len(value) == len(arguments)):
            return tuple(_converted(item, arguments[0]) for item in value)
    elif hint is float:
        if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300:
            return float(value)
    elif type(value) is hint:
        return value
    raise TypeError


def describe(hint: Any, limits: Limits) -> str:
    """What a setting may be, in words: "whole number from 2 to 65536"."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return "one of " + ", ".join(arguments)
    if origin in (Union, types.UnionType):
        return f"{describe(arguments[0], limits)}, or null"
    if origin is tuple:
        item = describe(arguments[0], limits)
        if arguments[-1] is not Ellipsis:
            return f"a list of {len(arguments)} values, each a {item}"
        return f"a list of {'different values, each ' if limits.unique else ''}{item}"
    if limits.choices:
        return "one of " + ", ".join(map(str, limits.choices))
    names = {int: "whole number", float: "number", bool: "true or false", str: "text"}
    return names[hint] + limits.words()


def schema(hint: Any, limits: Limits) -> dict[str, Any]:
    """What a setting may be, as JSON Schema (draft 2020-12)."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return {"type": "string", "enum": list(arguments)}
    if origin in (Union, types.UnionType):
        own = schema(arguments[0], limits)
        return {**own, "type": [own["type"], "null"]}
    if origin is tuple:
        size = {} if arguments[-1] is Ellipsis else {"minItems": len(arguments), "maxItems": len(arguments)}
        unique = {"uniqueItems": True} if limits.unique else {}
        return {"type": "array", "items": schema(arguments[0], limits), **size, **unique}
    names = {int: "integer", float: "number", bool: "boolean", str: "string"}
    return {"type": names[hint], **limits.schema()}


def plain(value: Any) -> Any:
    """`value` as plain JSON types: tuples become lists."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, tuple) else value


def _number(value: int | float) -> str:
    return f"{value:g}".replace("e+0", "e") if isinstance(value, float) else str(value)
