"""The form of a value in bytes: typed nodes, made from an IDL and read by the compiler.

Every node has three numbers:
- `size`: the number of its bytes if it never varies, otherwise None.
- `floor`: the minimum number of its bytes.
- `cells`: the number of values that it expands to. It limits what an IDL can make the compiler write or allocate.

`unreadable` is True if no value of the node can be read, so that the position of everything after it is unknown too.
"""

from typing import Final, TypeAlias

SIZES: Final = {
    "bool": 1, "u8": 1, "i8": 1, "u16": 2, "i16": 2, "u32": 4, "i32": 4, "f32": 4, "u64": 8, "i64": 8, "f64": 8,
    "u128": 16, "i128": 16, "u256": 32, "i256": 32,
}  # fmt: skip
"""Bytes of each scalar. All are little-endian. Integers wider than 32 bits are strings in JSON."""

SIZE_MAX: Final = 10_485_760
"""Maximum number of bytes of a fixed layout: the size of the largest account that Solana allows."""

PREFIXES: Final = frozenset({"u8", "u16", "u32", "u64"})
"""Scalars that a count, a length or a tag can be."""

CELLS_MAX: Final = 200_000
DEPTH_MAX: Final = 18
"""Maximum nesting depth. Generated code nests at most one loop per level, and CPython allows 20."""

LINK_DEPTH: Final = 14
"""Nesting depth from which a type of varying size is read through a Link, so that no layout reaches DEPTH_MAX."""


class ShapeError(ValueError):
    """Error of a shape that cannot exist, or is larger than any account. The message says what is expected."""


class _Shape:
    size: int | None
    floor: int
    cells: int

    def __init__(self, size: int | None, floor: int, cells: int, depth: int = 0) -> None:
        if depth > DEPTH_MAX:
            raise ShapeError(f"values nested {depth} deep, expected at most {DEPTH_MAX}")
        if floor > SIZE_MAX:
            raise ShapeError(f"{floor} bytes, expected at most {SIZE_MAX} (the largest account)")
        if cells > CELLS_MAX:
            raise ShapeError(f"unfolds to {cells} values, expected at most {CELLS_MAX}")
        self.size, self.floor, self.cells, self.depth = size, floor, cells, depth
        self.unreadable = False


class Unreadable(_Shape):
    """A type that the IDL does not define, or not in a readable way. Its values are None."""

    def __init__(self) -> None:
        super().__init__(None, 0, 1)
        self.unreadable = True


class Link(_Shape):
    """Another type, read when it is reached: a type that contains itself, or that nests too deep to be written inline.

    `target` is set once that type is known. Every cycle takes at least one byte (a tag, a count).
    """

    def __init__(self, target: "Shape | None" = None) -> None:
        super().__init__(None, 1 if target is None else target.floor, 1 if target is None else target.cells)
        self.target: Shape = Unreadable() if target is None else target


class Scalar(_Shape):
    """A number or bool, with the IDL's name."""

    def __init__(self, kind: str) -> None:
        super().__init__(SIZES[kind], SIZES[kind], 1)
        self.kind = kind


class Key(_Shape):
    """A 32-byte public key, decoded as base58 text."""

    def __init__(self) -> None:
        super().__init__(32, 32, 1)


class Text(_Shape):
    """Length-prefixed UTF-8. Invalid bytes are decoded as U+FFFD."""

    def __init__(self, prefix: str = "u32") -> None:
        super().__init__(None, SIZES[prefix], 1)
        self.prefix = prefix


class Blob(_Shape):
    """Raw bytes, decoded as base64: `length` bytes, the number of bytes in the prefix, or the `rest` of the data."""

    def __init__(self, length: int | None, *, rest: bool = False, prefix: str = "u32") -> None:
        super().__init__(length, length if length is not None else 0 if rest else SIZES[prefix], 1)
        self.length, self.rest, self.prefix = length, rest, prefix


class Pad(_Shape):
    """Bytes that the C layout puts between fields. They are skipped, never shown."""

    def __init__(self, length: int) -> None:
        super().__init__(length, length, 1)


class Option(_Shape):
    """A tag, followed by the item unless the tag is 0. An absent item is None."""

    def __init__(self, item: "Shape", prefix: str = "u8") -> None:
        super().__init__(None, SIZES[prefix], 1 + item.cells, 1 + item.depth)
        self.item, self.prefix = item, prefix


class COption(_Shape):
    """A tag, followed by space for the item, whether the item is present or not."""

    def __init__(self, item: "Shape", prefix: str = "u32") -> None:
        if item.size is None:
            raise ShapeError("coption of a type of varying size, expected one of fixed size")
        size = SIZES[prefix] + item.size
        super().__init__(size, size, 1 + item.cells, 1 + item.depth)
        self.item, self.prefix = item, prefix


class Vec(_Shape):
    """A count, followed by that many items."""

    def __init__(self, item: "Shape", prefix: str = "u32") -> None:
        if not item.floor and not item.unreadable:
            raise ShapeError("vec of values that may take no bytes: a count alone could fill the memory")
        super().__init__(None, SIZES[prefix], 1 + item.cells, 1 + item.depth)
        self.item, self.prefix = item, prefix


class Items(_Shape):
    """As many items of fixed size as fit into the remaining bytes (a ring buffer at the end of an account)."""

    def __init__(self, item: "Shape") -> None:
        if not item.size:
            raise ShapeError("items of varying size, expected a type of fixed size")
        super().__init__(None, 0, 1 + item.cells, 1 + item.depth)
        self.item = item


class Array(_Shape):
    """`length` items without a prefix."""

    def __init__(self, item: "Shape", length: int) -> None:
        if length and not item.floor and not item.unreadable:
            raise ShapeError("array of values that may take no bytes")
        size = item.size * length if item.size is not None else None
        super().__init__(size, item.floor * length, 1 + item.cells * length, 1 + item.depth)
        self.item, self.length = item, length
        self.unreadable = item.unreadable and length > 0


class Field:
    """A field of a struct. `shown` is False for padding: its bytes are read and left out of the data."""

    def __init__(self, name: str, shape: "Shape") -> None:
        self.name, self.shape = name, shape
        self.shown = not isinstance(shape, Pad) and not name.lstrip("_").lower().startswith("padding")


class Struct(_Shape):
    """Consecutive fields. Unnamed fields are decoded as a list, a single unnamed field as its own value.

    `whole` is the number of leading fields that can be read. After the first unreadable field, positions are unknown.
    `align` is set if the fields are padded as in memory. `repr` is what the IDL says about the memory layout.
    """

    def __init__(self, name: str, fields: tuple[Field, ...], *, named: bool = True) -> None:
        sizes = [field.shape.size for field in fields]
        size = None if None in sizes else sum(size for size in sizes if size is not None)
        inner = [field.shape for field in fields]
        depth = 1 + max((shape.depth for shape in inner), default=0)
        whole = next((at for at, shape in enumerate(inner) if shape.unreadable), len(inner))
        floor = sum(shape.floor for shape in inner[: whole + 1])
        super().__init__(size, floor, 1 + sum(shape.cells for shape in inner), depth)
        self.name, self.fields, self.named, self.whole = name, fields, named, whole
        self.unreadable = whole < len(inner)
        self.align: int | None = None
        self.repr: dict[str, object] | None = None

    @property
    def shown(self) -> list[Field]:
        """The fields that appear in the data."""
        return [field for field in self.fields if field.shown]

    @property
    def told(self) -> dict[str, "Shape"]:
        """The shape of each field that appears in the data. Fields whose position is unknown are Unreadable."""
        fields = [(at, field) for at, field in enumerate(self.fields) if field.shown]
        return {field.name: field.shape if at <= self.whole else Unreadable() for at, field in fields}


class Variant:
    """One variant of an enum. `body` is None if it has no data."""

    def __init__(self, name: str, body: Struct | None) -> None:
        self.name, self.body = name, body


class Enum(_Shape):
    """An index, followed by the variant's data. Decoded as `"Name"`, or as `{"Name": …}` if the variant has data."""

    def __init__(self, name: str, variants: tuple[Variant, ...], prefix: str = "u8") -> None:
        bodies = [variant.body for variant in variants if variant.body is not None]
        depth = 1 + max((body.depth for body in bodies), default=0)
        tag = SIZES[prefix]
        super().__init__(None if bodies else tag, tag, 1 + sum(body.cells for body in bodies), depth)
        self.name, self.variants, self.unit, self.prefix = name, variants, not bodies, prefix


class Extensions(_Shape):
    """Token-2022's tail: entries of a u16 type, a u16 length and that many bytes, until type 0 or the end.

    `kinds` names the types in order. A variant's data is the form of the entry's bytes.
    """

    def __init__(self, kinds: Enum) -> None:
        super().__init__(None, 0, 1 + kinds.cells, 1 + kinds.depth)
        self.kinds = kinds


Shape: TypeAlias = (
    Scalar
    | Key
    | Text
    | Blob
    | Pad
    | Option
    | COption
    | Vec
    | Items
    | Array
    | Struct
    | Enum
    | Extensions
    | Link
    | Unreadable
)
