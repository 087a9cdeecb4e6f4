"""The types that a settings field may have: parses text or TOML, checks the value, describes the accepted values."""

import math
import re
import types
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple, Union, get_args, get_origin

import msgspec

from headrace.config.kinds import Demand

_BASES: Final = (str, int, float, bool, Path)
_BOOLS: Final = dict.fromkeys(("true", "1", "yes", "on"), True) | dict.fromkeys(("false", "0", "no", "off"), False)


class RefusedError(ValueError):
    """The value does not fit the shape. The error has no text, so that it shows no secret."""


class Shape(NamedTuple):
    """Parsed type of a setting: `base`, or one of `choices`.

    `many` means a list of them, and `optional` that None is allowed.
    `limits` are the msgspec.Meta of one item, `many_limits` those of the list.
    """

    base: type
    choices: tuple[str | int, ...] = ()
    optional: bool = False
    many: bool = False
    limits: tuple[msgspec.Meta, ...] = ()
    many_limits: tuple[msgspec.Meta, ...] = ()

    @classmethod
    def of(cls, annotation: Any) -> "Shape":
        """Parse a type: str, int, float, bool, Path, Literal, tuple[X, ...] of these, X | None, each with msgspec.Meta.

        Raises TypeError for any other type.
        """
        limits: tuple[msgspec.Meta, ...] = ()
        while get_origin(annotation) is Annotated:
            annotation, *extras = get_args(annotation)
            limits += tuple(extra for extra in extras if isinstance(extra, msgspec.Meta))
        origin, args = get_origin(annotation), get_args(annotation)
        if origin in (Union, types.UnionType):
            inner = [arg for arg in args if arg is not types.NoneType]
            if len(inner) == 1 and len(args) == 2:
                shape = cls.of(inner[0])
                if shape.many:
                    return shape._replace(optional=True, many_limits=shape.many_limits + limits)
                return shape._replace(optional=True, limits=shape.limits + limits)
        elif origin is tuple and len(args) == 2 and args[1] is Ellipsis:
            item = cls.of(args[0])
            if not item.many and not item.optional:
                return item._replace(many=True, many_limits=limits)
        elif origin is Literal and len({type(arg) for arg in args}) == 1 and isinstance(args[0], str | int):
            return cls(type(args[0]), choices=args, limits=limits)
        elif annotation in _BASES:
            return cls(annotation, limits=limits)
        raise TypeError(f"{annotation} is not a type that settings can have")

    def from_text(self, text: str, demand: Demand) -> Any:
        """Return the value of environment text, without blanks at both ends. Raises RefusedError."""
        text = text.strip()
        if self.optional and not text:
            return None
        if self.many:
            items = [item.strip() for item in text.split(",")]
            return self._list([self._item(item, demand, _parse_text) for item in items if item])
        return self._item(text, demand, _parse_text)

    def from_toml(self, value: Any, demand: Demand) -> Any:
        """Return the value of a TOML value. An empty string means None, which TOML lacks. Raises RefusedError."""
        if self.optional and value == "":
            return None
        if self.many:
            if not isinstance(value, list):
                raise RefusedError
            return self._list([self._item(item, demand, _parse_toml) for item in value])
        return self._item(value, demand, _parse_toml)

    def expected(self, demand: Demand) -> str:
        """Return the accepted values in words: "an integer from 1 to 65535"."""
        if self.choices:
            words = f"one of {', '.join(map(str, self.choices))}"
        elif self.base in (int, float):
            words = ("an integer" if self.base is int else "a number") + _range(self.limits)
        elif self.base is bool:
            words = "true or false (or 1/0, yes/no, on/off)"
        elif self.base is Path:
            words = "a path"
        else:
            words = demand.expected + _length(self.limits, "characters") + _pattern(self.limits)
        if self.many:
            words = f"a list{_length(self.many_limits, 'items')} (commas in the environment), each {words}"
        return f"{words}, or nothing" if self.optional else words

    def _item(self, given: Any, demand: Demand, parse: Callable[["Shape", Any], Any]) -> Any:
        value = parse(self, given)
        if isinstance(value, str):
            value = demand.complete(value)
        if isinstance(value, str) and not self.choices and not demand.accepts(value):
            raise RefusedError
        _check_limits(value, self.base, self.limits)
        return value

    def _list(self, items: list[Any]) -> tuple[Any, ...]:
        _check_limits(items, list, self.many_limits)
        return tuple(items)


def _parse_text(shape: Shape, text: str) -> Any:
    if shape.choices:
        return _choice(shape, text)
    if shape.base is bool and text.lower() in _BOOLS:
        return _BOOLS[text.lower()]
    if shape.base is int and re.fullmatch(r"[+-]?[0-9]{1,40}", text):
        return int(text)
    if shape.base is float and re.fullmatch(r"[+-]?[0-9]{0,40}\.?[0-9]{1,40}(?:[eE][+-]?[0-9]{1,3})?", text):
        return _finite(float(text))
    if shape.base is str:
        return text
    return _path(shape, text)


def _parse_toml(shape: Shape, value: Any) -> Any:
    if shape.choices and isinstance(value, str | int) and not isinstance(value, bool):
        return _choice(shape, str(value))
    if shape.base is float and type(value) in (int, float):
        return _finite(value)
    if shape.base is not Path and type(value) is shape.base and not shape.choices:
        return value
    return _path(shape, value)


def _choice(shape: Shape, text: str) -> str | int:
    for choice in shape.choices:
        if str(choice).casefold() == text.casefold():
            return choice
    raise RefusedError


def _finite(value: float) -> float:
    if isinstance(value, int) and abs(value) > 2**1000:
        raise RefusedError
    if not math.isfinite(value):
        raise RefusedError
    return float(value)


def _path(shape: Shape, value: Any) -> Path:
    if shape.base is not Path or not isinstance(value, str) or not value or "\0" in value:
        raise RefusedError
    return Path(value)


def _check_limits(value: Any, base: type, limits: tuple[msgspec.Meta, ...]) -> None:
    fits = True
    for limit in limits:
        try:
            msgspec.convert(value, Annotated[base, limit])
        except msgspec.ValidationError:
            fits = False
    if not fits:
        raise RefusedError


def _first(limits: tuple[msgspec.Meta, ...], name: str) -> Any:
    return next((value for limit in limits if (value := getattr(limit, name)) is not None), None)


def _range(limits: tuple[msgspec.Meta, ...]) -> str:
    ge, gt, le, lt, step = (_first(limits, name) for name in ("ge", "gt", "le", "lt", "multiple_of"))
    words = [f"at least {ge}"] if ge is not None else [f"above {gt}"] if gt is not None else []
    words += [f"at most {le}"] if le is not None else [f"below {lt}"] if lt is not None else []
    if ge is not None and le is not None:
        text = f" from {ge} to {le}"
    else:
        text = " and ".join(words)
        text = f" of {text}" if text.startswith("at ") else f" {text}".rstrip()
    return text + (f", a multiple of {step}" if step is not None else "")


def _length(limits: tuple[msgspec.Meta, ...], unit: str) -> str:
    low, high = _first(limits, "min_length"), _first(limits, "max_length")
    if low is not None and high is not None:
        return f" of {low} to {high} {unit}"
    if low is not None:
        return " that is not empty" if low == 1 else f" of at least {low} {unit}"
    return f" of at most {high} {unit}" if high is not None else ""


def _pattern(limits: tuple[msgspec.Meta, ...]) -> str:
    pattern = _first(limits, "pattern")
    return f" that matches {pattern}" if pattern is not None else ""
