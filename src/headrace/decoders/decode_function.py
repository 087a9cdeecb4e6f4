"""Writes one decode function, which returns the fields of a struct as a dict.

Names from an IDL enter the code only as string literals made by `repr`, or as attributes if they are plain identifiers,
so no IDL can add code of its own.
"""

import keyword
import re
import struct
from collections.abc import Collection
from typing import Any, Final

from headrace.decoders.codegen import Decode, Hooks, ValueWriter, mapping
from headrace.decoders.shapes import Shape, Struct
from headrace.decoders.tolerant import Stopped

_ATTRIBUTES_MAX: Final = 29
"""Maximum number of fields that are set as attributes of an empty object, whose `__dict__` is then the data.

CPython lets such dicts share their keys, up to 29. Filling one takes two thirds of the time of a dict display.
"""
_PLAIN: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


class FunctionWriter(ValueWriter):
    """Writes the decoder of one struct."""

    def __init__(self, shape: Struct, hooks: Hooks) -> None:
        super().__init__(hooks)
        self.shape = shape
        self.space |= {
            "longer": hooks.longer,
            "count_short": hooks.count_short,
            "error": (struct.error, UnicodeDecodeError, Stopped),
        }

    def function(self, whole: int, shown: Collection[str], aliases: dict[str, str], *, stop_early: bool) -> Decode:
        """Return a decoder of the first `whole` fields, of which the data contains those in `shown`.

        Later fields are None.
        With `stop_early`, the bytes after the fields are ignored and the leftover is 0.
        """
        fields = self.shape.fields
        names = [field.name for field in fields if field.name in shown]
        names += [new for old, new in aliases.items() if old in names]
        slots = _slots(names)
        if slots:
            self.line(f"o = {self.constant(type('Fields', (), {}))}()")
        values = dict.fromkeys(names, "None")
        for field in fields[:whole]:
            if field.name in shown:
                self.slot = slots.get(field.name, "")
                values[field.name] = self.read(field.shape)
            else:
                self.skip(field.shape)
        self.slot = ""
        self.flush()
        if whole < self.shape.whole:
            self.line(f"if n - p >= {first_floor(fields[whole].shape)}: return longer(data, start)")
            self.line("count_short(n)")
        data = self.filled(values, slots, {new: old for old, new in aliases.items() if old in values})
        self.line(f"return {data}, {'0' if stop_early else 'n - p'}")
        decode: Decode = self.compiled(sum(field.shape.floor for field in fields[: min(whole, self.shape.whole + 1)]))
        return decode

    def filled(self, values: dict[str, str], slots: dict[str, str], old_names: dict[str, str]) -> str:
        """Emit code that assigns values to their slots. Return the expression for the dict."""
        if not slots:
            return mapping(values | {new: values[old] for new, old in old_names.items()})
        rest = {}
        for name, value in values.items():
            told = slots.get(old_names[name], values[old_names[name]]) if name in old_names else value
            if name not in slots:
                rest[name] = told
            elif told != slots[name]:
                self.line(f"{slots[name]} = {told}")
        if not rest:
            return "o.__dict__"
        self.line("d = o.__dict__")
        for name, told in rest.items():
            self.line(f"d[{name!r}] = {told}")
        return "d"

    def compiled(self, floor: int) -> Any:
        """Return the function of the lines written so far. Data of fewer than `floor` bytes is short."""
        body = "\n".join(self.lines)
        source = (
            "def decode(data, start=0):\n    n = len(data); p = start\n"
            f"    if n - p < {floor}: return short(data, start)\n"
            f"    try:\n{body}\n    except error:\n        return short(data, start)\n"
        )
        exec(compile(source, f"<layout {self.shape.name!r}>", "exec"), self.space)  # noqa: S102 - see the module's text
        return self.space["decode"]


def first_floor(shape: Shape) -> int:
    """Return the minimum size of the first value inside. A nested struct is read as far as possible."""
    while isinstance(shape, Struct) and shape.fields and shape.named:
        shape = shape.fields[0].shape
    return shape.floor


def _slots(names: list[str]) -> dict[str, str]:
    """Return the attribute for each of the first fields; none if any name can't be an attribute."""
    if not all(_PLAIN.fullmatch(name) and not keyword.iskeyword(name) for name in names):
        return {}
    return {name: f"o.{name}" for name in names[:_ATTRIBUTES_MAX]}
