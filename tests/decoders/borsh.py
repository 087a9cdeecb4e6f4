"""A plain borsh writer and random IDL types with values: what the compiled decoders are held to."""

import base64
import struct
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st
from solders.pubkey import Pubkey

INTEGERS = {f"{sign}{bits}": (sign, bits // 8) for sign in "ui" for bits in (8, 16, 32, 64, 128, 256)}


@dataclass
class Drawn:
    """One IDL type, its bytes, and what they should read as: native and as wire JSON."""

    idl: Any
    raw: bytes
    native: Any
    wire: Any


@dataclass
class Types:
    """Collects the named types that a drawn type needs, as an IDL's `types`."""

    defined: list[dict[str, Any]] = field(default_factory=list)

    def name(self, prefix: str) -> str:
        return f"{prefix}{len(self.defined)}"


def u32(value: int) -> bytes:
    return value.to_bytes(4, "little")


@st.composite
def scalars(draw: st.DrawFn) -> Drawn:
    kind = draw(st.sampled_from([*INTEGERS, "bool", "f32", "f64", "pubkey", "string", "bytes"]))
    if kind in INTEGERS:
        sign, size = INTEGERS[kind]
        bits = size * 8
        low, high = (0, 2**bits - 1) if sign == "u" else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        number = draw(st.integers(low, high))
        raw = number.to_bytes(size, "little", signed=sign == "i")
        return Drawn(kind, raw, number, str(number) if size > 4 else number)
    if kind == "bool":
        flag = draw(st.booleans())
        return Drawn(kind, bytes([flag]), flag, flag)
    if kind in ("f32", "f64"):
        number_f = draw(st.floats(width=32, allow_nan=False))
        finite = number_f if abs(number_f) != float("inf") else None
        return Drawn(kind, struct.pack("<f" if kind == "f32" else "<d", number_f), number_f, finite)
    if kind == "pubkey":
        raw = draw(st.binary(min_size=32, max_size=32))
        return Drawn(kind, raw, str(Pubkey(raw)), str(Pubkey(raw)))
    if kind == "string":
        text = draw(st.text(max_size=20))
        encoded = text.encode()
        return Drawn(kind, u32(len(encoded)) + encoded, text, text)
    blob = draw(st.binary(max_size=40))
    shown = base64.b64encode(blob).decode()
    return Drawn(kind, u32(len(blob)) + blob, shown, shown)


@st.composite
def values(draw: st.DrawFn, types: Types, depth: int = 3) -> Drawn:
    """A type and a value of it; containers nest at most `depth` deep."""
    if depth == 0:
        return draw(scalars())
    kind = draw(
        st.sampled_from(["scalar", "option", "coption", "vec", "array", "bytes_array", "struct", "tuple", "enum"])
    )
    match kind:
        case "option" | "coption":
            item = draw(values(types, depth - 1) if kind == "option" else scalars_of_fixed_size())
            present = draw(st.booleans())
            tag = bytes([present]) if kind == "option" else u32(present)
            absent = b"" if kind == "option" else bytes(len(item.raw))
            body = item.raw if present else absent
            return Drawn({kind: item.idl}, tag + body, item.native if present else None, item.wire if present else None)
        case "vec" | "array":
            item = draw(values(types, depth - 1))
            count = draw(st.integers(0 if kind == "vec" else 1, 10))
            # One value repeated: a list of values of one random type needs no more.
            idl = {"vec": item.idl} if kind == "vec" else {"array": [item.idl, count]}
            prefix = u32(count) if kind == "vec" else b""
            if item.idl == "u8" and kind == "vec":
                shown = base64.b64encode(item.raw * count).decode()
                return Drawn(idl, prefix + item.raw * count, shown, shown)
            return Drawn(idl, prefix + item.raw * count, [item.native] * count, [item.wire] * count)
        case "bytes_array":
            raw = draw(st.binary(min_size=1, max_size=40))
            shown_bytes: Any = base64.b64encode(raw).decode() if len(raw) > 32 else list(raw)
            return Drawn({"array": ["u8", len(raw)]}, raw, shown_bytes, shown_bytes)
        case "struct" | "tuple":
            return draw(structs(types, depth, named=kind == "struct"))
        case "enum":
            return draw(enums(types, depth))
    return draw(scalars())


@st.composite
def scalars_of_fixed_size(draw: st.DrawFn) -> Drawn:
    return draw(scalars().filter(lambda drawn: drawn.idl not in ("string", "bytes")))


@st.composite
def structs(draw: st.DrawFn, types: Types, depth: int, *, named: bool, name: str = "") -> Drawn:
    items = draw(st.lists(values(types, depth - 1), min_size=1, max_size=20 if name else 4))
    raw = b"".join(item.raw for item in items)
    own = name or types.name("Struct")
    if named:
        fields: list[Any] = [{"name": f"field_{i}", "type": item.idl} for i, item in enumerate(items)]
        native: Any = {f"field_{i}": item.native for i, item in enumerate(items)}
        wire: Any = {f"field_{i}": item.wire for i, item in enumerate(items)}
    else:
        fields = [item.idl for item in items]
        native = [item.native for item in items] if len(items) > 1 else items[0].native
        wire = [item.wire for item in items] if len(items) > 1 else items[0].wire
    types.defined.append({"name": own, "type": {"kind": "struct", "fields": fields}})
    return Drawn({"defined": {"name": own}}, raw, native, wire)


@st.composite
def enums(draw: st.DrawFn, types: Types, depth: int) -> Drawn:
    variants: list[dict[str, Any]] = [{"name": f"Unit{i}"} for i in range(draw(st.integers(0, 3)))]
    body = draw(st.none() | structs(types, depth, named=draw(st.booleans())))
    if body is None:
        variants.append({"name": "Last"})
        index = draw(st.integers(0, len(variants) - 1))
        native: Any = variants[index]["name"]
        wire = native
        raw = bytes([index])
    else:
        fields = types.defined[-1]["type"]["fields"]
        index = len(variants)
        variants.append({"name": "Body", "fields": fields})
        native, wire, raw = {"Body": body.native}, {"Body": body.wire}, bytes([index]) + body.raw
    name = types.name("Enum")
    types.defined.append({"name": name, "type": {"kind": "enum", "variants": variants}})
    return Drawn({"defined": {"name": name}}, raw, native, wire)


@st.composite
def idls(draw: st.DrawFn) -> tuple[dict[str, Any], Drawn]:
    """A whole IDL with one event `Event`, and a value of that event."""
    types = Types()
    drawn = draw(structs(types, 3, named=True, name="Event"))
    interface = {
        "address": "6EF8rrecthR5Dkzon8Nwu78hRvfCKubJ14M5uBEwF6P",
        "events": [{"name": "Event", "discriminator": [1, 2, 3, 4, 5, 6, 7, 8]}],
        "types": types.defined,
    }
    return interface, drawn
