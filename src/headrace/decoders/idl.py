"""Reads Anchor IDLs, the legacy format and that of 0.30 and later, into shapes."""

import hashlib
import re
from collections.abc import Callable
from typing import Any, Final, NamedTuple, TypeVar

import msgspec

from headrace.decoders import shapes
from headrace.decoders.shapes import Field, Shape, ShapeError
from headrace.model.errors import ConfigError
from headrace.model.keys import is_key

T = TypeVar("T")

IDL_BYTES_MAX: Final = 4 * 1024 * 1024
DEPTH_MAX: Final = 32

_ALIASES: Final = {"publicKey": "pubkey", "Pubkey": "pubkey", "String": "string", "float32": "f32", "float64": "f64"}
_WRAPPERS: Final[dict[str, Callable[[Shape], Shape]]] = {
    "option": shapes.Option, "coption": shapes.COption, "vec": shapes.Vec, "items": shapes.Items,
}  # fmt: skip
_SBF_ALIGN_MAX: Final = 8
"""On chain no type is aligned to more than 8 bytes, not even u128."""


class Item(NamedTuple):
    """One event, account or instruction: its name, what marks it, and the shape of what follows the mark.

    `discriminator` stands before the shape, or `inside` it at `mark_at`; `sizes` are lengths that identify an account
    by themselves (SPL Token, Raydium AMM v4).
    `accounts` are an instruction's account names, in order; `forms` are the orders it has for other account counts.
    """

    name: str
    discriminator: bytes
    shape: shapes.Struct
    accounts: tuple[str, ...] = ()
    forms: tuple[tuple[str, ...], ...] = ()
    sizes: tuple[int, ...] = ()
    mark_at: int = 0
    inside: bool = False


class Idl(NamedTuple):
    """One program's interface. `aliases` maps a struct's name to other names that its fields are known by."""

    name: str
    address: str | None
    instructions: tuple[Item, ...]
    accounts: tuple[Item, ...]
    events: tuple[Item, ...]
    aliases: dict[str, dict[str, str]]


def snake_case(name: str) -> str:
    """`swapBaseIn` → `swap_base_in`, as Anchor does before it hashes an instruction's name."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def discriminator(namespace: str, name: str) -> bytes:
    """The 8 bytes that Anchor derives where an IDL states none."""
    return hashlib.sha256(f"{namespace}:{name}".encode()).digest()[:8]


def parse(text: bytes, name: str, *supplements: bytes) -> Idl:
    """Read one IDL file called `name`, with what its supplements add or replace.

    Raises ConfigError that names the file, the place in it and what is expected there.
    """
    documents = [_document(text, name), *(_document(more, f"{name} (supplement)") for more in supplements)]
    return _Reader(name, documents).idl()


def _document(text: bytes, name: str) -> dict[str, Any]:
    if len(text) > IDL_BYTES_MAX:
        raise ConfigError(f"IDL {name}", f"{len(text)} bytes", f"at most {IDL_BYTES_MAX}")
    try:
        document = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise ConfigError(f"IDL {name}", f"no JSON ({error})", "an Anchor IDL as JSON") from None
    if not isinstance(document, dict):
        raise ConfigError(f"IDL {name}", f"a JSON {type(document).__name__}", "an object with instructions and types")
    return document


class _Reader:
    """Reads one program's documents; the path of the place being read is kept for errors."""

    def __init__(self, name: str, documents: list[dict[str, Any]]) -> None:
        self.name = name
        self.documents = documents
        self.path: list[str] = []
        self.legacy = not documents[0].get("address")
        self.types: dict[str, dict[str, Any]] = {}
        self.known: dict[str, Shape] = {}
        self.open: list[str] = []
        self.depth = 0

    def fail(self, given: object, expected: str) -> ConfigError:
        shown = given if isinstance(given, str) else repr(given)
        return ConfigError(f"IDL {self.name}: {'.'.join(self.path) or 'top'}", shown[:80], expected)

    # -- the document --

    def idl(self) -> Idl:
        for document in self.documents:
            for kind in ("types", "accounts"):
                for item in self.items(document, kind):
                    if "type" in item and isinstance(item["type"], dict):
                        self.types[item["name"]] = item
        aliases: dict[str, dict[str, str]] = {}
        for document in self.documents:
            aliases.update(document.get("aliases", {}))
        return Idl(
            self.name,
            self.address(),
            self.merged("instructions", self.instruction),
            self.merged("accounts", self.account),
            self.merged("events", self.event),
            aliases,
        )

    def address(self) -> str | None:
        document = self.documents[0]
        metadata = document.get("metadata")
        given = document.get("address") or (metadata.get("address") if isinstance(metadata, dict) else None)
        if given is not None and not (isinstance(given, str) and is_key(given)):
            self.path = ["address"]
            raise self.fail(given, "a program id (base58 of 32 bytes)")
        return given

    def merged(self, kind: str, read: Any) -> tuple[Item, ...]:
        """All items of a kind; a later document's item replaces an earlier one of the same name and discriminator."""
        found: dict[tuple[str, bytes], Item] = {}
        for document in self.documents:
            for entry in self.items(document, kind):
                self.path = [kind, entry["name"]]
                item: Item = read(entry)
                found[item.name, item.discriminator] = item
        return tuple(found.values())

    def items(self, document: dict[str, Any], kind: str) -> list[dict[str, Any]]:
        items = document.get(kind) or []
        self.path = [kind]
        if not isinstance(items, list):
            raise self.fail(items, "a list")
        for index, item in enumerate(items):
            if not isinstance(item, dict) or not isinstance(item.get("name"), str):
                self.path = [kind, str(index)]
                raise self.fail(item, 'an object with a "name"')
        return items

    def mark(self, entry: dict[str, Any], namespace: str, hashed: str) -> bytes:
        given = entry.get("discriminator")
        if given is None and isinstance(entry.get("discriminant"), dict):  # shank
            given = [entry["discriminant"].get("value")]
        if given is None:
            return discriminator(namespace, hashed)
        try:
            return bytes(given)
        except (TypeError, ValueError):
            raise self.fail(given, "a discriminator: a list of bytes") from None

    def instruction(self, entry: dict[str, Any]) -> Item:
        plain = self.legacy and "discriminator" not in entry
        name = snake_case(entry["name"]) if plain else entry["name"]
        shape = self.struct(name, entry.get("args") or [])
        accounts = tuple(self.account_names(entry.get("accounts") or []))
        forms = tuple(tuple(self.account_names(form)) for form in entry.get("other_accounts", []))
        return Item(name, self.mark(entry, "global", name), shape, accounts, forms)

    def account_names(self, accounts: list[Any], prefix: str = "") -> list[str]:
        """Names in order; those of a composite are `group.name`."""
        names: list[str] = []
        for account in accounts:
            if isinstance(account, str):
                names.append(account)
            elif isinstance(account, dict) and isinstance(account.get("name"), str):
                name = prefix + (snake_case(account["name"]) if self.legacy else account["name"])
                inner = account.get("accounts")
                if isinstance(inner, list) and len(prefix) < 256:
                    names += self.account_names(inner, name + ".")
                else:
                    names.append(name)
            else:
                raise self.fail(account, 'an account: an object with a "name"')
        return names

    def account(self, entry: dict[str, Any]) -> Item:
        name = entry["name"]
        shape = self.defined(entry.get("shape", name))
        if not isinstance(shape, shapes.Struct):
            raise self.fail(name, "a struct")
        if "sizes" in entry:
            mark = bytes(entry.get("discriminator", ()))
            return Item(name, mark, shape, sizes=tuple(entry["sizes"]), mark_at=entry.get("mark_at", 0), inside=True)
        return Item(name, self.mark(entry, "account", name), shape)

    def event(self, entry: dict[str, Any]) -> Item:
        name = entry["name"]
        if "fields" in entry:
            shape: Shape = self.struct(name, entry["fields"] or [])
        else:
            shape = self.defined(entry.get("shape", name))
        if not isinstance(shape, shapes.Struct):
            raise self.fail(name, "a struct")
        return Item(name, self.mark(entry, "event", name), shape, inside=entry.get("inside") is True)

    # -- types --

    def struct(self, name: str, fields: object, generics: dict[str, Any] | None = None) -> shapes.Struct:
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

    def guarded(self, build: Callable[[], T]) -> T:
        try:
            return build()
        except ShapeError as error:
            raise self.fail(str(error), "a layout that fits an account") from None

    def shape(self, given: object, generics: dict[str, Any]) -> Shape:
        """The shape of one type expression, with generic names replaced by what they stand for."""
        self.depth += 1
        if self.depth > DEPTH_MAX:
            raise self.fail("deeper nesting", f"types nested at most {DEPTH_MAX} deep")
        try:
            return self._shape(given, generics)
        finally:
            self.depth -= 1

    def _shape(self, given: object, generics: dict[str, Any]) -> Shape:
        if isinstance(given, str):
            return self.simple(_ALIASES.get(given, given))
        if not isinstance(given, dict) or len(given) != 1:
            raise self.fail(given, 'a type: a name, or an object with one key such as {"vec": "u64"}')
        ((kind, inner),) = given.items()
        match kind:
            case "defined":
                arguments = []
                if isinstance(inner, dict):
                    arguments = [self.argument(a, generics) for a in inner.get("generics") or []]
                    inner = inner.get("name")
                return self.defined(inner, arguments)
            case "generic" if inner in generics:
                return self.shape(generics[inner], {})
            case "vec" if inner == "u8":
                return shapes.Blob(None)
            case "option" | "coption" | "vec" | "items":
                item = self.shape(inner, generics)
                return self.guarded(lambda: _WRAPPERS[kind](item))
            case "tuple" if isinstance(inner, list):
                return self.struct("tuple", inner, generics)
            case "array" if isinstance(inner, list) and len(inner) == 2:
                return self.array(inner[0], self.length(inner[1], generics), generics)
            case "extensions":
                kinds = self.defined(inner)
                if isinstance(kinds, shapes.Enum):
                    return shapes.Extensions(kinds)
        raise self.fail({kind: inner}, "a type that borsh knows (vec, option, coption, array, tuple, defined, generic)")

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

    def argument(self, given: object, generics: dict[str, Any]) -> object:
        """What a generic argument stands for: a type expression, or a number for a const."""
        if not isinstance(given, dict):
            raise self.fail(given, 'a generic argument such as {"kind": "type", "type": "u64"}')
        value = given.get("type", given.get("value"))
        if isinstance(value, dict) and set(value) == {"generic"}:
            return generics.get(value["generic"])
        return value

    def length(self, given: object, generics: dict[str, Any]) -> int:
        if isinstance(given, dict):
            given = generics.get(str(given.get("generic")))
        try:
            length = int(given) if isinstance(given, int | str) else -1
        except ValueError:
            length = -1
        if not 0 <= length <= shapes.SIZE_MAX:
            raise self.fail(given, f"an array length from 0 to {shapes.SIZE_MAX}")
        return length

    def array(self, item: object, length: int, generics: dict[str, Any]) -> Shape:
        if item == "u8" and length > 32:
            return shapes.Blob(length)
        shape = self.shape(item, generics)
        return self.guarded(lambda: shapes.Array(shape, length))

    def defined(self, name: object, arguments: list[Any] | None = None) -> Shape:
        """A named type, read once; with generic arguments once per set of arguments."""
        if not isinstance(name, str) or name not in self.types:
            raise self.fail(name, "the name of a type in this IDL")
        key = f"{name}<{arguments}>" if arguments else name
        if key in self.known:
            return self.known[key]
        if key in self.open or len(self.open) > DEPTH_MAX:
            raise self.fail(
                " → ".join([*self.open[-4:], key]), f"types that do not contain themselves, {DEPTH_MAX} deep"
            )
        path, self.path = self.path, ["types", name]
        depth, self.depth = self.depth, 0
        self.open.append(key)
        shape = self.known[key] = self.named_type(name, arguments or [])
        self.open.pop()
        self.path, self.depth = path, depth
        return shape

    def named_type(self, name: str, arguments: list[Any]) -> Shape:
        entry = self.types[name]
        body = entry["type"]
        names = [str(g.get("name") if isinstance(g, dict) else g) for g in entry.get("generics") or []]
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

    def enum(self, name: str, variants: object, generics: dict[str, Any]) -> shapes.Enum:
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
        align = max(align, layout.get("align") or 1)
        if at % align:
            fields.append(Field("", shapes.Pad(-at % align)))
        aligned = self.guarded(lambda: shapes.Struct(struct.name, tuple(fields), named=struct.named))
        aligned.align = align
        return aligned


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
