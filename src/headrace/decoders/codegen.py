"""Writes code that reads values: each fixed-size run becomes one `struct` unpack, other values become plain code.

Names from an IDL enter the code only as string literals made by `repr`, so no IDL can add code of its own.
"""

import struct
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

import pybase64

from headrace.decoders import shapes, tolerant
from headrace.decoders.shapes import Shape, Struct
from headrace.model.keys import KEY_TEXTS

Decoded = tuple[dict[str, Any], int]
"""The fields, and the number of bytes after them."""
Decode = Callable[..., Decoded]
"""`decode(data: bytes, start: int = 0)`."""

_CODES: Final = {
    "bool": "B", "u8": "B", "i8": "b", "u16": "H", "i16": "h", "u32": "I", "i32": "i", "u64": "Q", "i64": "q",
    "f32": "f", "f64": "d", "u128": "QQ", "i128": "Qq",
}  # fmt: skip
_INLINE_MAX: Final = 48
"""Maximum number of parts of a nested value that is read inline.

A larger value gets its own function, to limit the size of each function.
"""


class _UnknownIndex(dict[int, str]):
    """Index → name for an enum without data. An unknown index stays a number and is counted."""

    def __init__(self, names: Iterable[str], count: Callable[[], None]) -> None:
        super().__init__(enumerate(names))
        self.count = count

    def __missing__(self, index: int) -> int:
        self.count()
        return index


class _Bools(dict[int, bool]):
    """A byte as bool. A byte that is neither 0 nor 1 is True and is counted."""

    def __init__(self, count: Callable[[], None]) -> None:
        super().__init__({0: False, 1: True})
        self.count = count

    def __missing__(self, byte: int) -> bool:
        self.count()
        return True


class Hooks(NamedTuple):
    """Functions that a decoder calls for data that does not fit its layout.

    `short(data, start)` reads data that does not fit. `longer(data, start)` reads data with another whole field. Both
    return what the decoder would return. `count_short(length)`, `count_variant()`, `count_invalid()`,
    `count_unreadable()` and `count_linked(variants, invalid)` count mismatches.
    """

    short: Decode
    longer: Decode
    count_short: Callable[[int], None]
    count_variant: Callable[[], None]
    count_invalid: Callable[[], None]
    count_unreadable: Callable[[], None]
    count_linked: Callable[[int, int], None]


class ValueWriter:
    """Writes statements that read values one after another, and collects the names that they use in `space`.

    The code runs where `data`, its length `n` and the position `p` are defined, and exits with `return short(data,
    start)`. If `slot` is set, the next value read is assigned to it. After `stopped`, the position of later values is
    unknown, so they are None.
    """

    def __init__(self, hooks: Hooks) -> None:
        self.hooks = hooks
        self.space: dict[str, Any] = {
            "keys": KEY_TEXTS,
            "b64": pybase64.b64encode_as_string,
            "int_of": int.from_bytes,
            "short": hooks.short,
            "bools": _Bools(hooks.count_invalid),
            "count_invalid": hooks.count_invalid,
        }
        self.lines: list[str] = []
        self.indent = self.top = 2
        self.stopped = False
        self.serial = 0
        self.slot = ""
        self.run_format = ""
        self.run_names: list[str] = []

    # -- small pieces --

    def fresh(self, prefix: str = "v") -> str:
        """Return a new name.

        The first name for a field with a `slot` is that slot, so that fields keep their order.
        """
        if self.slot and prefix == "v":
            slot, self.slot = self.slot, ""
            return slot
        self.serial += 1
        return f"{prefix}{self.serial}"

    def constant(self, value: object, prefix: str = "C") -> str:
        name = self.fresh(prefix)
        self.space[name] = value
        return name

    def line(self, text: str) -> None:
        self.lines.append("    " * self.indent + text)

    # -- fixed-size values: a struct format, the names that it fills, an expression over them --

    def fixed(self, shape: Shape) -> tuple[str, list[str], str]:
        match shape:
            case shapes.Scalar(kind="u128" | "i128"):
                low, high = self.fresh(), self.fresh()
                return _CODES[shape.kind], [low, high], f"({low} | {high} << 64)"
            case shapes.Scalar(kind="u256" | "i256"):
                name = self.fresh()
                return "32s", [name], f"int_of({name}, 'little', signed={shape.kind == 'i256'})"
            case shapes.Scalar(kind="bool"):
                name = self.fresh()
                return "B", [name], f"bools[{name}]"
            case shapes.Scalar():
                name = self.fresh()
                return _CODES[shape.kind], [name], name
            case shapes.Key():
                name = self.fresh()
                return "32s", [name], f"keys[{name}]"
            case shapes.Blob(size=int(size)):
                name = self.fresh()
                return f"{size}s", [name], f"b64({name})"
            case shapes.Pad(size=int(size)):
                return f"{size}x", [], "None"
            case shapes.Enum():
                name = self.fresh()
                table = _UnknownIndex([v.name for v in shape.variants], self.hooks.count_variant)
                return _CODES[shape.prefix], [name], f"{self.constant(table)}[{name}]"
            case shapes.COption():
                tag = self.fresh()
                code, names, value = self.fixed(shape.item)
                present = f"({tag} == 1 or {tag} and not count_invalid())"
                return _CODES[shape.prefix] + code, [tag, *names], f"({value} if {present} else None)"
            case shapes.Array():
                return self.fixed_array(shape)
            case shapes.Struct():
                return self.fixed_struct(shape)
        raise AssertionError(shape)

    def fixed_array(self, shape: shapes.Array) -> tuple[str, list[str], str]:
        if shape.length <= 8 and isinstance(shape.item, shapes.Scalar | shapes.Key):
            parts = [self.fixed(shape.item) for _ in range(shape.length)]
            return (
                "".join(part[0] for part in parts),
                [name for part in parts for name in part[1]],
                f"[{', '.join(part[2] for part in parts)}]",
            )
        name = self.fresh()
        return f"{shape.size}s", [name], self.items(shape.item, name)

    def items(self, item: Shape, raw: str) -> str:
        """Return an expression for the list of fixed-size items that fill the bytes named `raw`."""
        code, names, value = self.fixed(item)
        if not names:  # nothing but padding
            return f"[{value} for _ in range(len({raw}) // {item.size})]"
        unpack = self.constant(struct.Struct("<" + code).iter_unpack, "I")
        return f"[{value} for {', '.join(names)}, in {unpack}({raw})]"

    def fixed_struct(self, shape: Struct) -> tuple[str, list[str], str]:
        code, names, values = "", list[str](), dict[str, str]()
        slot = self.slot
        if shape.cells > _INLINE_MAX:
            self.slot = ""  # the names may become parameters
        for field in shape.fields:
            if field.shown:
                part, part_names, values[field.name] = self.fixed(field.shape)
                code += part
                names += part_names
            else:
                code += f"{field.shape.size}x"
        value = _value(shape, values)
        if len(names) <= _INLINE_MAX:
            return code, names, value
        unpack = self.constant(struct.Struct("<" + code).unpack, "U")
        self.slot = slot
        raw = self.fresh()
        return f"{shape.size}s", [raw], f"(lambda {', '.join(names)}: {value})(*{unpack}({raw}))"

    # -- values of varying size: statements, then an expression --

    def read(self, shape: Shape) -> str:
        """Emit code that reads one value. Return an expression for the value, valid after the next `flush`."""
        if self.stopped:
            return "None"
        if shape.size is not None:
            code, names, value = self.fixed(shape)
            self.run_format += code
            self.run_names += names
            return value
        match shape:
            case shapes.Struct():
                return self.read_struct(shape)
            case shapes.Text():
                return self.slice(self.count(shape.prefix), "{}.decode()")
            case shapes.Blob(rest=True):
                self.flush()
                return self.slice("n - p", "b64({})")
            case shapes.Blob():
                return self.slice(self.count(shape.prefix), "b64({})")
            case shapes.Vec():
                return self.vec(shape)
            case shapes.Items():
                self.flush()
                raw = self.slice(f"(n - p) // {shape.item.size} * {shape.item.size}", "{}")
                return self.items(shape.item, raw)
            case shapes.Array():
                return self.loop(shape.item, str(shape.length))
            case shapes.Option():
                return self.option(shape)
            case shapes.Enum():
                return self.enum(shape)
            case shapes.Extensions():
                self.flush()
                value = self.fresh()
                reader = tolerant.ExtensionReader(shape.kinds, self.hooks.count_variant)
                self.line(f"{value}, p = {self.constant(reader, 'X')}(data, p)")
                return value
            case shapes.Link():
                self.flush()
                value = self.fresh()
                link = tolerant.LinkReader(shape, self.hooks.count_linked)
                self.line(f"{value}, p = {self.constant(link, 'L')}(data, p)")
                return value
            case shapes.Unreadable():
                self.unreadable()
                return "None"
        raise AssertionError(shape)

    def unreadable(self) -> None:
        """Emit a stop. In a branch, where other data may be readable, emit a call of the slow reader instead."""
        self.flush()
        if self.indent > self.top:
            self.line("return short(data, start)")
        else:
            self.stopped = True
            self.line(f"{self.constant(self.hooks.count_unreadable, 'N')}()")

    def read_struct(self, shape: Struct) -> str:
        values = {}
        for field in shape.fields:
            if field.shown:
                values[field.name] = self.read(field.shape)
            else:
                self.skip(field.shape)
        return _value(shape, values)

    def skip(self, shape: Shape) -> None:
        """Emit code that skips a value."""
        match shape:
            case _ if self.stopped:
                pass
            case _ if shape.size is not None:
                self.run_format += f"{shape.size}x"
            case shapes.Text() | shapes.Blob(rest=False):
                self.slice(self.count(shape.prefix), "")
            case _:
                self.read(shape)

    def flush(self) -> None:
        """Emit the unpack of the collected run."""
        if not self.run_format:
            return
        run = struct.Struct("<" + self.run_format)
        if self.run_names:
            self.line(f"{', '.join(self.run_names)}, = {self.constant(run.unpack_from, 'U')}(data, p)")
            self.line(f"p += {run.size}")
        else:
            self.line(f"p += {run.size}")
            self.line("if p > n: return short(data, start)")
        self.run_format, self.run_names = "", []

    def count(self, kind: str) -> str:
        """Emit the read of a length, count or tag. It ends the collected run."""
        name = self.fresh()
        self.run_format += _CODES[kind]
        self.run_names.append(name)
        self.flush()
        return name

    def slice(self, length: str, wrap: str) -> str:
        value, end = self.fresh(), self.fresh("q")
        self.line(f"{end} = p + {length}")
        self.line(f"if {end} > n: return short(data, start)")
        if wrap:
            self.line(f"{value} = {wrap.format(f'data[p:{end}]')}")
        self.line(f"p = {end}")
        return value

    def vec(self, shape: shapes.Vec) -> str:
        count = self.count(shape.prefix)
        if shape.item.size is None:
            # Limited by the number of bytes left, before anything is allocated.
            self.line(f"if {count} * {shape.item.floor} > n - p: return short(data, start)")
            return self.loop(shape.item, count)
        raw = self.slice(f"{count} * {shape.item.size}", "{}")
        value = self.fresh()
        self.line(f"{value} = {self.items(shape.item, raw)} if {raw} else []")
        return value

    def loop(self, item: Shape, count: str) -> str:
        self.flush()
        value = self.fresh()
        self.line(f"{value} = []")
        self.line(f"for _ in range({count}):")
        self.indent += 1
        element = self.read(item)
        self.flush()
        self.line(f"{value}.append({element})")
        self.indent -= 1
        return value

    def option(self, shape: shapes.Option) -> str:
        value = self.fresh()
        tag = self.count(shape.prefix)
        self.line(f"{value} = None")
        self.line(f"if {tag}:")
        self.branch(value, shape.item, "{}")
        self.line(f"    if {tag} != 1: count_invalid()")
        return value

    def branch(self, value: str, shape: Shape, wrap: str) -> None:
        self.indent += 1
        inner = self.read(shape)
        self.flush()
        self.line(f"{value} = {wrap.format(inner)}")
        self.indent -= 1

    def enum(self, shape: shapes.Enum) -> str:
        value = self.fresh()
        tag = self.count(shape.prefix)
        units = {i: v.name for i, v in enumerate(shape.variants) if v.body is None}
        self.line(f"{value} = {self.constant(units)}.get({tag})")
        word = "if"
        self.line(f"if {value} is None:")
        self.indent += 1
        for index, variant in enumerate(shape.variants):
            if variant.body is not None:
                self.line(f"{word} {tag} == {index}:")
                self.branch(value, variant.body, _braced(variant.name))
                word = "elif"
        self.line("else: return short(data, start)")
        self.indent -= 1
        return value


def _braced(name: str) -> str:
    """Return a format string that wraps a value as `{name: value}`."""
    return "{{" + repr(name).replace("{", "{{").replace("}", "}}") + ": {}}}"


def mapping(values: dict[str, str]) -> str:
    """Return an expression for a dict of these expressions."""
    return "{" + ", ".join(f"{key!r}: {value}" for key, value in values.items()) + "}"


def _value(shape: Struct, values: dict[str, str]) -> str:
    if shape.named:
        return mapping(values)
    if len(values) == 1:
        return next(iter(values.values()))
    return f"[{', '.join(values.values())}]"
