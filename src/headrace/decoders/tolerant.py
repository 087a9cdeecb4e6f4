"""Reads data that the compiled decoders can't read.

That is older and shorter layouts, cut-off data, variants that no IDL knows yet, and types that contain themselves. It
reads field by field, never raises on bad bytes, and allocates no more than the given data justifies.
"""

import struct
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import pybase64

from headrace.decoders import shapes
from headrace.decoders.shapes import Shape, Struct
from headrace.model.keys import key_text

VALUE_DEPTH_MAX: Final = 200
"""Maximum nesting depth of values. Deeper values are not read. Python allows about 1,000 nested calls."""


class Stopped(Exception):  # noqa: N818 - control flow of this file and of the code that `codegen` writes
    """The value can't be read to its end.

    If it is a struct, `partial` has its leading fields, and `at` is where they end.
    """

    partial: dict[str, Any] | None = None
    at = 0


class _Cut(Stopped):
    """The data ends inside the value."""


class _Untold(Stopped):
    """The IDL does not define the type, or the value nests too deep."""


class _Unknown(Stopped):
    """An enum index that the IDL lacks, in an enum whose variants differ in length."""

    def __init__(self, index: int, at: int) -> None:
        self.index, self.at = index, at


class StructRead(NamedTuple):
    """Result of a tolerant read: the `values` of all fields, how many fields are `whole`, and where these end.

    A field that is not whole is None. `unknown` counts enum indexes that the IDL lacks, and `invalid` counts bools and
    option tags that are neither 0 nor 1. `stopped` is the reason why nothing after the whole fields could be read, or
    empty if everything was read:
    - `cut`: the data ends in a field.
    - `inside`: the data ends in a struct whose first fields are kept.
    - `variant`: an enum variant that the IDL lacks.
    - `untold`: a type that the IDL does not define.
    """

    values: dict[str, Any]
    whole: int
    end: int
    unknown: int
    invalid: int
    stopped: str = ""


class Reader:
    """Reads values from one buffer, starting at `at`."""

    def __init__(self, data: bytes, at: int = 0) -> None:
        self.data = data
        self.at = at
        self.unknown = 0
        self.invalid = 0
        self.depth = 0

    def read_struct(self, shape: Struct) -> StructRead:
        """Return the leading fields that are whole. All later fields are None."""
        values: dict[str, Any] = dict.fromkeys(field.name for field in shape.fields)
        for index, field in enumerate(shape.fields):
            before = self.at
            try:
                values[field.name] = self.read(field.shape)
            except Stopped as stop:
                stopped = "cut"
                if isinstance(stop, _Unknown):
                    stopped = "variant"
                    self.unknown += 1
                    if isinstance(field.shape, shapes.Enum):
                        values[field.name], before = stop.index, stop.at
                elif isinstance(stop, _Untold):
                    stopped = "untold"
                if stop.partial is not None:
                    values[field.name], before = stop.partial, stop.at
                    stopped = "inside" if stopped == "cut" else stopped
                return StructRead(values, index, before, self.unknown, self.invalid, stopped)
        return StructRead(values, len(shape.fields), self.at, self.unknown, self.invalid)

    def read(self, shape: Shape) -> Any:
        """Read one value. Raises Stopped, which `read_struct` handles."""
        match shape:
            case shapes.Scalar(kind="bool"):
                return self.present("u8")
            case shapes.Scalar():
                return _scalar(shape.kind, self.take(shape.floor))
            case shapes.Key():
                return key_text(self.take(32))
            case shapes.Pad():
                self.take(shape.floor)
                return None
            case shapes.Text():
                return str(self.take(self.number(shape.prefix)), "utf-8", "replace")
            case shapes.Blob(rest=True):
                return pybase64.b64encode_as_string(self.take(len(self.data) - self.at))
            case shapes.Blob():
                length = self.number(shape.prefix) if shape.size is None else shape.size
                return pybase64.b64encode_as_string(self.take(length))
            case shapes.Extensions():
                entries, self.at = ExtensionReader(shape.kinds, self.count_unknown)(self.data, self.at)
                return entries
            case shapes.Unreadable():
                raise _Untold
        self.depth += 1
        if self.depth > VALUE_DEPTH_MAX:
            raise _Untold
        value = self.nested(shape)
        self.depth -= 1
        return value

    def nested(self, shape: Shape) -> Any:
        """Read one value that contains other values."""
        match shape:
            case shapes.Link():
                return self.read(shape.target)
            case shapes.Option():
                return self.read(shape.item) if self.present(shape.prefix) else None
            case shapes.COption():
                there, value = self.present(shape.prefix), self.read(shape.item)
                return value if there else None
            case shapes.Vec():
                return self.several(shape.item, self.number(shape.prefix))
            case shapes.Items():
                return self.several(shape.item, (len(self.data) - self.at) // shape.item.floor)
            case shapes.Array():
                return self.several(shape.item, shape.length)
            case shapes.Enum():
                return self.variant(shape)
            case shapes.Struct():
                return self.fields(shape)
        raise AssertionError(shape)

    def take(self, length: int) -> bytes:
        end = self.at + length
        if end > len(self.data):
            raise _Cut
        taken = self.data[self.at : end]
        self.at = end
        return taken

    def number(self, kind: str) -> int:
        return int.from_bytes(self.take(shapes.SIZES[kind]), "little")

    def present(self, kind: str) -> bool:
        """Read a bool or the tag of an option."""
        tag = self.number(kind)
        if tag > 1:
            self.invalid += 1
        return tag != 0

    def count_unknown(self) -> None:
        self.unknown += 1

    def several(self, item: Shape, count: int) -> list[Any]:
        if count * item.floor > len(self.data) - self.at:  # checked before anything is allocated
            raise _Cut
        try:
            return [self.read(item) for _ in range(count)]
        except Stopped as stop:
            stop.partial = None
            raise

    def fields(self, shape: Struct) -> Any:
        values: dict[str, Any] = {}
        for field in shape.fields:
            before = self.at
            try:
                values[field.name] = self.read(field.shape)
            except Stopped as stop:
                self.keep_first(stop, shape, field, values, before)
                raise
        shown = {field.name: values[field.name] for field in shape.shown}
        if shape.named:
            return shown
        return next(iter(shown.values())) if len(shown) == 1 else list(shown.values())

    def keep_first(
        self, stop: Stopped, shape: Struct, field: shapes.Field, values: dict[str, Any], before: int
    ) -> None:
        """Add to `stop` what could be read of a struct that ended in `field`."""
        if isinstance(stop, _Unknown) and isinstance(field.shape, shapes.Enum):
            values[field.name], before = stop.index, stop.at
        elif stop.partial is not None:
            values[field.name], before = stop.partial, stop.at
        first = {each.name: values.get(each.name) for each in shape.shown}
        stop.partial = first if shape.named and any(value is not None for value in first.values()) else None
        stop.at = before

    def variant(self, shape: shapes.Enum) -> Any:
        index = self.number(shape.prefix)
        if index >= len(shape.variants):
            if not shape.unit:
                raise _Unknown(index, self.at)
            self.count_unknown()
            return index
        variant = shape.variants[index]
        if variant.body is None:
            return variant.name
        try:
            return {variant.name: self.read(variant.body)}
        except Stopped as stop:
            stop.partial = None
            raise


def _scalar(kind: str, raw: bytes) -> Any:
    if kind in ("f32", "f64"):
        return struct.unpack("<f" if kind == "f32" else "<d", raw)[0]
    return int.from_bytes(raw, "little", signed=kind[0] == "i")


class LinkReader:
    """Reads one value of a type that is a Link. Raises Stopped if the value can't be read to its end.

    `count(unknown, invalid)` is called with the value's counts of both.
    """

    def __init__(self, link: shapes.Link, count: Callable[[int, int], None]) -> None:
        self.link = link
        self.count = count

    def __call__(self, data: bytes, at: int) -> tuple[Any, int]:
        """Return the value at `at`, and where it ends."""
        reader = Reader(data, at)
        value = reader.read(self.link)
        if reader.unknown or reader.invalid:
            self.count(reader.unknown, reader.invalid)
        return value, reader.at


class ExtensionReader:
    """Reads the extension entries of a Token-2022 account.

    Each is `{"extension": name, "length": bytes, "data": …}`. `data` has the entry's fields. It is None if the entry
    has none, and base64 if its type is unknown or it has too few bytes for its fields.
    """

    def __init__(self, kinds: shapes.Enum, count_unknown: Callable[[], None]) -> None:
        self.variants = kinds.variants
        self.count_unknown = count_unknown

    def __call__(self, data: bytes, at: int) -> tuple[list[dict[str, Any]], int]:
        """Return the entries from `at` on, and where they end."""
        entries: list[dict[str, Any]] = []
        while len(data) - at >= 4:
            kind = int.from_bytes(data[at : at + 2], "little")
            length = int.from_bytes(data[at + 2 : at + 4], "little")
            if not kind or length > len(data) - at - 4:
                break
            at += 4
            entries.append(self.entry(kind, data[at : at + length]))
            at += length
        return entries, at

    def entry(self, kind: int, raw: bytes) -> dict[str, Any]:
        if kind >= len(self.variants):
            self.count_unknown()
            return {"extension": kind, "length": len(raw), "data": pybase64.b64encode_as_string(raw)}
        variant = self.variants[kind]
        value: Any = pybase64.b64encode_as_string(raw) if raw else None
        if variant.body is not None:
            try:
                value = Reader(raw).fields(variant.body)
            except Stopped:
                pass
        return {"extension": variant.name, "length": len(raw), "data": value}
