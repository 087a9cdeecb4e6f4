"""Reads the type expressions of an IDL, of both formats, into shapes."""

import re
from collections.abc import Callable
from typing import Any, Final, TypeAlias, TypeVar

from headrace.decoders import shapes
from headrace.decoders.shapes import Field, Shape, ShapeError
from headrace.model.errors import ConfigError

T = TypeVar("T")

Argument: TypeAlias = Shape | int | str | None
"""What a generic name stands for: a type, or the number of a const; None where the IDL does not say."""

DEPTH_MAX: Final = 32

_ALIASES: Final = {"publicKey": "pubkey", "Pubkey": "pubkey", "String": "string", "float32": "f32", "float64": "f64"}
_WRAPPERS: Final[dict[str, Callable[[Shape], Shape]]] = {
    "option": shapes.Option, "coption": shapes.COption, "vec": shapes.Vec, "items": shapes.Items,
}  # fmt: skip
_MAPS: Final = {"hashMap", "HashMap", "bTreeMap", "BTreeMap"}
_SETS: Final = {"hashSet", "HashSet", "bTreeSet", "BTreeSet"}
_SBF_ALIGN_MAX: Final = 8
"""On chain no type is aligned to more than 8 bytes, not even u128."""


def snake_case(name: str) -> str:
    """`swapBaseIn` → `swap_base_in`, as Anchor does before it hashes an instruction's name."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


class TypeReader:
    """Turns type expressions of one IDL into shapes, each named type once.

    `types` are the IDL's named types by name. `path` is the place that is being read: errors name it.
    """

    def __init__(self, name: str, types: dict[str, dict[str, Any]], *, legacy: bool) -> None:
        self.name = name
        self.types = types
        self.legacy = legacy
        self.path: list[str] = []
        self.known: dict[tuple[str, tuple[Argument, ...]], Shape] = {}
        self.open: list[tuple[str, tuple[Argument, ...]]] = []
        self.depth = 0

    def fail(self, given: object, expected: str) -> ConfigError:
        shown = given if isinstance(given, str) else repr(given)
        return ConfigError(f"IDL {self.name}: {'.'.join(self.path) or 'top'}", shown[:80], expected)

    def struct(self, name: str, fields: object, generics: dict[str, Argument] | None = None) -> shapes.Struct:
        if not isinstance(fields, list):
            raise self.fail(fields, "a list of fields")
        named = all(isinstance(field, dict) and "name" in field and "type" in field for field in fields)
        read: list[Field] = []
        for index, field in enumerate(fields):
            label = str(field["name"]) if named else str(index)
            self.path.append(label)
            shape = self.shape(field["type"] if named else field, generics or {})
            read.append(Field(snake_case(label) if self.legacy else label, shape))
            self.path.pop()
        return self.guarded(lambda: shapes.Struct(name, tuple(read), named=named))

    def listed(self, given: object, what: str) -> list[Any]:
        """`given` where it is a list; nothing is an empty one."""
        if given is not None and not isinstance(given, list):
            raise self.fail(given, f"a list of {what}")
        return given or []

    def guarded(self, build: Callable[[], T]) -> T:
        try:
            return build()
        except ShapeError as error:
            raise self.fail(str(error), "a layout that fits an account") from None

    def shape(self, given: object, generics: dict[str, Argument]) -> Shape:
        """The shape of one type expression, with generic names replaced by what they stand for."""
        self.depth += 1
        if self.depth > DEPTH_MAX:
            raise self.fail("deeper nesting", f"types nested at most {DEPTH_MAX} deep")
        try:
            return self._shape(given, generics)
        finally:
            self.depth -= 1

    def _shape(self, given: object, generics: dict[str, Argument]) -> Shape:
        if isinstance(given, str):
            return self.simple(_ALIASES.get(given, given))
        if not isinstance(given, dict) or len(given) != 1:
            raise self.fail(given, 'a type: a name, or an object with one key such as {"vec": "u64"}')
        ((kind, inner),) = given.items()
        match kind:
            case "defined" | "definedWithTypeArgs" if isinstance(inner, dict):  # the longer word is Anchor 0.29's
                given = inner.get("generics", inner.get("args"))
                arguments = [self.argument(each, generics) for each in self.listed(given, "generics")]
                return self.defined(inner.get("name"), *arguments)
            case "defined":
                return self.defined(inner)
            case "generic" if isinstance(told := generics.get(str(inner)), shapes.Shape):
                return told
            case "option" | "coption" | "vec" | "items":
                item = self.shape(inner, generics)
                if kind == "vec" and _is_byte(item):
                    return shapes.Blob(None)
                return self.guarded(lambda: _WRAPPERS[kind](item))
            case _ if kind in _SETS:
                return self.shape({"vec": inner}, generics)
            case _ if kind in _MAPS and isinstance(inner, list) and len(inner) == 2:
                return self.shape({"vec": {"tuple": inner}}, generics)
            case "tuple" if isinstance(inner, list):
                return self.struct("tuple", inner, generics)
            case "array" if isinstance(inner, list) and len(inner) == 2:
                return self.array(inner[0], self.length(inner[1], generics), generics)
            case "genericLenArray" if isinstance(inner, list) and len(inner) == 2:
                return self.array(inner[0], self.length({"generic": inner[1]}, generics), generics)
            case "extensions":
                kinds = self.defined(inner)
                if isinstance(kinds, shapes.Enum):
                    return shapes.Extensions(kinds)
        known = "vec, option, coption, array, tuple, hashMap, hashSet, bTreeMap, bTreeSet, defined, generic"
        raise self.fail({kind: inner}, f"a type that borsh knows ({known})")

    def simple(self, name: str) -> Shape:
        if name in shapes.SIZES:
            return shapes.Scalar(name)
        match name:
            case "pubkey":
                return shapes.Key()
            case "string":
                return shapes.Text()
            case "bytes":
                return shapes.Blob(None)
            case "rest":
                return shapes.Blob(None, rest=True)
        raise self.fail(name, 'a scalar, "pubkey", "string", "bytes" or an object')

    def argument(self, given: object, generics: dict[str, Argument]) -> Argument:
        """What a generic argument stands for. The name of a const that is passed on looks like that of a type."""
        kind = given.get("type", given) if isinstance(given, dict) else given
        if isinstance(kind, dict) and set(kind) == {"generic"}:
            return generics.get(str(kind["generic"]))
        if isinstance(kind, dict) and isinstance(value := kind.get("value"), int | str):
            return value
        return self.shape(kind, generics)

    def length(self, given: object, generics: dict[str, Argument]) -> int:
        if isinstance(given, dict):
            given = generics.get(str(given.get("generic")), given)
        try:
            length = int(given) if isinstance(given, int | str) else -1
        except ValueError:
            length = -1
        if not 0 <= length <= shapes.SIZE_MAX:
            raise self.fail(given, f"an array length from 0 to {shapes.SIZE_MAX}")
        return length

    def array(self, item: object, length: int, generics: dict[str, Argument]) -> Shape:
        shape = self.shape(item, generics)
        if length > 32 and _is_byte(shape):
            return shapes.Blob(length)
        return self.guarded(lambda: shapes.Array(shape, length))

    def defined(self, name: object, *arguments: Argument) -> Shape:
        """A named type, read once; with generic arguments once per set of arguments."""
        if not isinstance(name, str) or name not in self.types:
            raise self.fail(name, "the name of a type in this IDL")
        key = name, arguments
        if key in self.known:
            return self.known[key]
        if key in self.open or len(self.open) > DEPTH_MAX:
            chain = " → ".join([*(opened for opened, _ in self.open[-4:]), name])
            raise self.fail(chain, f"types that do not contain themselves, {DEPTH_MAX} deep")
        path, self.path = self.path, ["types", name]
        depth, self.depth = self.depth, 0
        self.open.append(key)
        shape = self.known[key] = self.named_type(name, arguments)
        self.open.pop()
        self.path, self.depth = path, depth
        return shape

    def named_type(self, name: str, arguments: tuple[Argument, ...]) -> Shape:
        entry = self.types[name]
        body = entry["type"]
        declared = self.listed(entry.get("generics"), "generics")
        names = [str(g.get("name") if isinstance(g, dict) else g) for g in declared]
        generics = dict(zip(names, arguments, strict=False))
        match body.get("kind"):
            case "struct":
                struct = self.struct(name, body.get("fields") or [], generics)
                return self.aligned(struct, entry) if "bytemuck" in str(entry.get("serialization")) else struct
            case "enum":
                return self.enum(name, body.get("variants"), generics)
            case "alias":
                return self.shape(body.get("value"), generics)
            case "type":
                return self.shape(body.get("alias"), generics)
        raise self.fail(body.get("kind"), 'the kind "struct", "enum" or "type"')

    def enum(self, name: str, variants: object, generics: dict[str, Argument]) -> shapes.Enum:
        if not isinstance(variants, list) or len(variants) > 256:
            raise self.fail(variants, "a list of at most 256 variants")
        read = []
        for variant in variants:
            if not isinstance(variant, dict) or not isinstance(variant.get("name"), str):
                raise self.fail(variant, 'a variant: an object with a "name"')
            self.path.append(variant["name"])
            fields = variant.get("fields")
            read.append(
                shapes.Variant(variant["name"], self.struct(variant["name"], fields, generics) if fields else None)
            )
            self.path.pop()
        return self.guarded(lambda: shapes.Enum(name, tuple(read)))

    def aligned(self, struct: shapes.Struct, entry: dict[str, Any]) -> shapes.Struct:
        """The C layout of a zero-copy struct: padding after each field up to the next one's alignment."""
        layout = entry.get("repr") or {}
        if not isinstance(layout, dict):
            raise self.fail(layout, 'a repr such as {"kind": "c"}')
        if struct.size is None:
            raise self.fail(struct.name, "a zero-copy struct of fixed size")
        packed = layout.get("packed") or layout.get("kind") != "c"
        fields: list[Field] = []
        at = 0
        for field in struct.fields:
            gap = 0 if packed else -at % _alignment(field.shape)
            if gap:
                fields.append(Field("", shapes.Pad(gap)))
            fields.append(field)
            at += gap + (field.shape.size or 0)
        align = 1 if packed else max((_alignment(f.shape) for f in struct.fields), default=1)
        wanted = layout.get("align") or 1
        if not isinstance(wanted, int) or not 1 <= wanted <= 4096:
            raise self.fail(wanted, "an alignment")
        align = max(align, wanted)
        if at % align:
            fields.append(Field("", shapes.Pad(-at % align)))
        aligned = self.guarded(lambda: shapes.Struct(struct.name, tuple(fields), named=struct.named))
        aligned.align = align
        return aligned


def _is_byte(shape: Shape) -> bool:
    return isinstance(shape, shapes.Scalar) and shape.kind == "u8"


def _alignment(shape: Shape) -> int:
    match shape:
        case shapes.Scalar():
            return min(shape.size or 1, _SBF_ALIGN_MAX)
        case shapes.Array():
            return _alignment(shape.item)
        case shapes.Struct():
            return shape.align
        case shapes.COption():
            return max(4, _alignment(shape.item))
    return 1
