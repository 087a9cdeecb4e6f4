"""Lays structs out as in memory: the bytes of zero-copy accounts, with the padding of the C layout."""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from headrace.decoders import shapes
from headrace.decoders.shapes import Field, Shape, ShapeError, Struct

_SBF_ALIGN_MAX: Final = 8
"""Largest alignment in bytes on chain, even for u128."""
_ALIGN_MAX: Final = 4096


class _Placed(NamedTuple):
    """A value in memory. Its alignment is certain if `low` and `high` are equal.

    They differ for a struct if the IDL does not say whether it is packed.
    """

    shape: Shape
    low: int
    high: int


def laid_out(struct: Struct, layout: Mapping[str, Any]) -> Struct:
    """Return a zero-copy struct with its padding, according to its `repr` in the IDL.

    Raises ShapeError if the layout is not certain: a field of varying size, or a missing repr where the C layout and
    the packed layout differ.
    """
    kind = layout.get("kind")
    if layout.get("packed"):
        return _marked(Struct(struct.name, tuple(_packed(struct)), named=struct.named), 1)
    if kind == "transparent":
        placed = [_in_memory(field.shape) for field in struct.fields]
        fields = tuple(Field(field.name, each.shape) for field, each in zip(struct.fields, placed, strict=True))
        if any(each.low != each.high for each in placed):
            raise ShapeError("a transparent struct of one whose repr is missing")
        return _marked(Struct(struct.name, fields, named=struct.named), max((each.high for each in placed), default=1))
    c = _c(struct, layout)
    if kind == "c":
        return c
    if c.size != struct.size:
        raise ShapeError("a zero-copy struct without repr, where the C layout has padding")
    return struct


def _packed(struct: Struct) -> list[Field]:
    return [Field(field.name, _in_memory(field.shape).shape) for field in struct.fields]


def _c(struct: Struct, layout: Mapping[str, Any]) -> Struct:
    """Return the struct with padding after each field up to the alignment of the next, and at the end up to its own."""
    fields: list[Field] = []
    at = low = high = 0
    for field in struct.fields:
        placed = _in_memory(field.shape)
        gap = -at % placed.high
        if gap != -at % placed.low:
            raise ShapeError(f"field {field.name} of a struct whose repr is missing: its alignment is not certain")
        if gap:
            fields.append(Field("", shapes.Pad(gap)))
        fields.append(Field(field.name, placed.shape))
        at += gap + (placed.shape.size or 0)
        low, high = max(low, placed.low), max(high, placed.high)
    wanted = layout.get("align") or 1
    if not isinstance(wanted, int) or not 1 <= wanted <= _ALIGN_MAX:
        raise ShapeError(f"alignment {str(wanted)[:20]}, expected a number from 1 to {_ALIGN_MAX}")
    low, high = max(low, wanted), max(high, wanted)
    if at % high != at % low:
        raise ShapeError("a field of a struct whose repr is missing: the padding at the end is not certain")
    if at % high:
        fields.append(Field("", shapes.Pad(-at % high)))
    return _marked(Struct(struct.name, tuple(fields), named=struct.named), high)


def _marked(struct: Struct, align: int) -> Struct:
    struct.align = align
    return struct


def _in_memory(shape: Shape) -> _Placed:
    match shape:
        case shapes.Scalar():
            align = min(shape.floor, _SBF_ALIGN_MAX)
        case shapes.Key() | shapes.Pad():
            align = 1
        case shapes.Blob(length=int()):
            align = 1
        case shapes.Enum(unit=True):
            align = shape.floor
        case shapes.COption() if shape.item.size is not None and _in_memory(shape.item).high <= shapes.SIZES["u32"]:
            align = shapes.SIZES["u32"]
        case shapes.Array():
            item = _in_memory(shape.item)
            return _Placed(shapes.Array(item.shape, shape.length), item.low, item.high)
        case Struct(align=int(align)):
            pass
        case Struct(repr=dict(layout)):
            placed = laid_out(shape, layout)
            align = placed.align or 1
            return _Placed(placed, align, align)
        case Struct():
            c = _c(shape, {})
            if c.size != shape.size:
                raise ShapeError(f"struct {shape.name} without repr, where the C layout has padding")
            return _Placed(shape, 1, c.align or 1)
        case _:
            raise ShapeError("a value of varying size in a zero-copy struct")
    return _Placed(shape, align, align)
