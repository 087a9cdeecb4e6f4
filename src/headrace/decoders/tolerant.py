"""Reads what the compiled decoders can't: older and shorter layouts, cut data, variants that no IDL knows yet.

Field by field and plain; it never raises on bad bytes and allocates no more than the data that is there asks for.
"""

import struct
from collections.abc import Callable
from typing import Any, NamedTuple

import pybase64

from headrace.decoders import shapes
from headrace.decoders.shapes import Shape, Struct
from headrace.model.keys import key_text


class _Cut(Exception):  # noqa: N818 - control flow inside this file
    """The data ends inside the value."""


class _Unknown(Exception):  # noqa: N818
    """An enum index that the IDL lacks, in an enum whose variants differ in length."""

    def __init__(self, index: int) -> None:
        self.index = index


class StructRead(NamedTuple):
    """What could be read: `values` of all fields (None where not whole), how many are `whole`, where they end.

    `unknown` counts enum indexes that the IDL lacks; after one `cut_by_variant` nothing more could be placed.
    """

    values: dict[str, Any]
    whole: int
    end: int
    unknown: int
    cut_by_variant: bool = False


class Reader:
    """Reads values from one buffer."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0
        self.unknown = 0

    def read_struct(self, shape: Struct, start: int) -> StructRead:
        """The leading fields that are whole; all later ones are None."""
        values: dict[str, Any] = dict.fromkeys(field.name for field in shape.fields)
        self.at = start
        for index, field in enumerate(shape.fields):
            before = self.at
            try:
                values[field.name] = self.read(field.shape)
            except _Cut:
                return StructRead(values, index, before, self.unknown)
            except _Unknown as unknown:
                if isinstance(field.shape, shapes.Enum):
                    values[field.name] = unknown.index
                    before += 1
                return StructRead(values, index, before, self.unknown + 1, True)
        return StructRead(values, len(shape.fields), self.at, self.unknown)

    def read(self, shape: Shape) -> Any:
        """One value. Raises _Cut or _Unknown, which `read_struct` turns into an answer."""
        match shape:
            case shapes.Scalar():
                return _scalar(shape.kind, self.take(shape.floor))
            case shapes.Key():
                return key_text(self.take(32))
            case shapes.Pad():
                self.take(shape.floor)
                return None
            case shapes.Text():
                return str(self.take(self.u32()), "utf-8", "replace")
            case shapes.Blob(rest=True):
                return pybase64.b64encode_as_string(self.take(len(self.data) - self.at))
            case shapes.Blob():
                return pybase64.b64encode_as_string(self.take(self.u32() if shape.size is None else shape.size))
            case shapes.Option():
                return self.read(shape.item) if self.take(1) != b"\0" else None
            case shapes.COption():
                tag, value = self.u32(), self.read(shape.item)
                return value if tag else None
            case shapes.Vec():
                return self.several(shape.item, self.u32())
            case shapes.Items():
                return self.several(shape.item, (len(self.data) - self.at) // shape.item.floor)
            case shapes.Array():
                return self.several(shape.item, shape.length)
            case shapes.Struct():
                return self.fields(shape)
            case shapes.Enum():
                return self.variant(shape)
            case shapes.Extensions():
                entries, self.at = ExtensionReader(shape.kinds, self.count_unknown)(self.data, self.at)
                return entries

    def take(self, length: int) -> bytes:
        end = self.at + length
        if end > len(self.data):
            raise _Cut
        taken = self.data[self.at : end]
        self.at = end
        return taken

    def u32(self) -> int:
        return int.from_bytes(self.take(4), "little")

    def count_unknown(self) -> None:
        self.unknown += 1

    def several(self, item: Shape, count: int) -> list[Any]:
        if count * item.floor > len(self.data) - self.at:  # before anything is allocated
            raise _Cut
        return [self.read(item) for _ in range(count)]

    def fields(self, shape: Struct) -> Any:
        values = {field.name: self.read(field.shape) for field in shape.fields}
        shown = {field.name: values[field.name] for field in shape.shown}
        if shape.named:
            return shown
        return next(iter(shown.values())) if len(shown) == 1 else list(shown.values())

    def variant(self, shape: shapes.Enum) -> Any:
        index = self.take(1)[0]
        if index >= len(shape.variants):
            if not shape.unit:
                raise _Unknown(index)
            self.count_unknown()
            return index
        variant = shape.variants[index]
        return variant.name if variant.body is None else {variant.name: self.fields(variant.body)}


def _scalar(kind: str, raw: bytes) -> Any:
    if kind == "bool":
        return raw != b"\0"
    if kind in ("f32", "f64"):
        return struct.unpack("<f" if kind == "f32" else "<d", raw)[0]
    return int.from_bytes(raw, "little", signed=kind[0] == "i")


class ExtensionReader:
    """Walks the extension entries of a Token-2022 account.

    Each reads as `{"extension": name, "length": bytes, "data": …}`: `data` holds its fields, None where it has none,
    base64 where its type is unknown or its bytes are fewer than its fields.
    """

    def __init__(self, kinds: shapes.Enum, count_unknown: Callable[[], None]) -> None:
        self.variants = kinds.variants
        self.count_unknown = count_unknown

    def __call__(self, data: bytes, at: int) -> tuple[list[dict[str, Any]], int]:
        """The entries from `at` on, and where they end."""
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
            except (_Cut, _Unknown):
                pass
        return {"extension": variant.name, "length": len(raw), "data": value}
