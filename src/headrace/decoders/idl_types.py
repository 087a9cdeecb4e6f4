"""Converts the type expressions of an IDL, of both formats, to shapes. An unreadable type affects only its users."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from headrace.decoders import shapes, type_text
from headrace.decoders.shapes import Field, Shape, ShapeError
from headrace.decoders.zero_copy import laid_out

DEPTH_MAX: Final = 64
OPEN_MAX: Final = 12
OPEN_DEPTH_MAX: Final = 24
"""Maximum depth of named types within each other, and maximum nesting depth around them.

Deeper types are read later, through a link, so that no chain of types exhausts the stack.
"""
TYPES_MAX: Final = 4096
"""Maximum number of named types in one IDL. Each set of generic arguments is a type of its own."""
ARGUMENTS_MAX: Final = 2000
"""Maximum number of characters of one set of generic arguments. It stops types that would grow without end."""
WARNINGS_MAX: Final = 50

_ALIASES: Final = {
    "publicKey": "pubkey", "Pubkey": "pubkey", "PublicKey": "pubkey", "String": "string", "str": "string",
    "float32": "f32", "float64": "f64", "Bytes": "bytes",
}  # fmt: skip
_WORDS: Final = {"usize": "u64", "isize": "i64"}
_WRAPPERS: Final[dict[str, Callable[..., Shape]]] = {
    "option": shapes.Option, "coption": shapes.COption, "vec": shapes.Vec, "items": shapes.Items,
}  # fmt: skip
_PREFIXED: Final = frozenset({"option", "coption", "vec"})
_MAPS: Final = {"hashMap", "HashMap", "bTreeMap", "BTreeMap"}
_SETS: Final = {"hashSet", "HashSet", "bTreeSet", "BTreeSet"}
_KNOWN: Final = "vec, option, coption, array, tuple, hashMap, hashSet, bTreeMap, bTreeSet, defined, generic"


def snake_case(name: str) -> str:
    """Turn `swapBaseIn` into `swap_base_in`, as Anchor does before it hashes an instruction's name."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


class Unfit(Exception):  # noqa: N818 - becomes a warning; the type or item concerned is left out
    """A part of an IDL is not as expected."""

    def __init__(self, given: object, expected: str) -> None:
        self.given = given if isinstance(given, str) else repr(given)
        self.expected = expected
        super().__init__(f"got {self.given[:80]}, expected {expected}")


class Argument(NamedTuple):
    """Value of a generic name: a type, or the number of a const. `text` is equal for equal arguments."""

    text: str
    value: Shape | int | str


Generics = Mapping[str, Argument]


class TypeReader:
    """Converts type expressions of one IDL to shapes, each named type once.

    `types` are the IDL's named types by name, and `constants` its constants. `path` is the current place in the IDL,
    and is named in `warnings`. Call `finish` once everything has been read.
    """

    def __init__(self, name: str, types: dict[str, dict[str, Any]], *, legacy: bool) -> None:
        self.name = name
        self.types = types
        self.constants: dict[str, str] = {}
        self.legacy = legacy
        self.path: list[str] = []
        self.warnings: list[str] = []
        self.known: dict[tuple[str, str], Shape] = {}
        self.links: dict[tuple[str, str], shapes.Link] = {}
        self.later: list[tuple[str, tuple[Argument, ...]]] = []
        self.open: list[tuple[str, str]] = []
        self.depth = 0

    def warn(self, problem: Unfit, effect: str = "read as null, and what follows in the same bytes") -> None:
        """Record the fault at `path` and its effect."""
        text = f"IDL {self.name}: {'.'.join(self.path) or 'top'}: {problem}; {effect}"
        if len(self.warnings) < WARNINGS_MAX and text not in self.warnings:
            self.warnings.append(text)
        elif len(self.warnings) == WARNINGS_MAX:
            self.warnings.append(f"IDL {self.name}: more than {WARNINGS_MAX} warnings")

    def listed(self, given: object, what: str) -> list[Any]:
        """Return `given` if it is a list; an empty list for None."""
        if given is not None and not isinstance(given, list):
            raise Unfit(given, f"a list of {what}")
        return given or []

    def struct(self, name: str, fields: object, generics: Generics | None = None) -> shapes.Struct:
        """Return consecutive fields. A field that can't be read is Unreadable.

        Raises Unfit if `fields` is not a list.
        """
        if not isinstance(fields, list):
            raise Unfit(fields, "a list of fields")
        named = any(isinstance(field, dict) and "name" in field and "type" in field for field in fields)
        read: list[Field] = []
        for index, field in enumerate(fields):
            label, kind = str(index), field
            if named:
                label, kind = (
                    (str(field.get("name", index)), field.get("type")) if isinstance(field, dict) else (label, field)
                )
            self.path.append(label)
            shape = self.shape(kind, generics or {})
            read.append(Field(snake_case(label) if self.legacy else label, shape))
            self.path.pop()
        return shapes.Struct(name, tuple(read), named=named or not fields)

    def shape(self, given: object, generics: Generics) -> Shape:
        """Return the shape of one type expression, with generic names replaced by their arguments."""
        self.depth += 1
        try:
            return self.bounded(self._shape(given, generics))
        except Unfit as problem:
            self.warn(problem)
        except ShapeError as error:
            self.warn(Unfit(str(error), "a layout that fits an account"))
        finally:
            self.depth -= 1
        return shapes.Unreadable()

    def bounded(self, shape: Shape) -> Shape:
        """Return `shape`, or a link to it if it nests too deep to be written inline."""
        deep = shape.size is None and shape.depth >= shapes.LINK_DEPTH and not shape.unreadable
        return shapes.Link(shape) if deep else shape

    def _shape(self, given: object, generics: Generics) -> Shape:
        if self.depth > DEPTH_MAX:
            raise Unfit("deeper nesting", f"types nested at most {DEPTH_MAX} deep")
        if isinstance(given, str):
            return self.called(given, generics)
        if not isinstance(given, dict) or len(given) != 1:
            raise Unfit(given, 'a type: a name, or an object with one key such as {"vec": "u64"}')
        ((kind, inner),) = given.items()
        match kind:
            case "defined" | "definedWithTypeArgs" if isinstance(inner, dict):  # the longer word is Anchor 0.29's
                arguments = self.listed(inner.get("generics", inner.get("args")), "generics")
                return self.defined(inner.get("name"), [self.argument(each, generics) for each in arguments], generics)
            case "defined":
                return self.defined(inner, (), generics)
            case "generic":
                return self.generic(inner, generics)
            case "option" | "coption" | "vec" | "items":
                return self.wrapped(kind, inner, generics)
            case _ if kind in _SETS:
                return self.wrapped("vec", inner, generics)
            case _ if kind in _MAPS and isinstance(inner, list) and len(inner) == 2:
                return self.wrapped("vec", {"tuple": inner}, generics)
            case "tuple" if isinstance(inner, list):
                return self.struct("tuple", inner, generics)
            case "array" if isinstance(inner, list) and len(inner) == 2:
                return self.array(inner[0], self.length(inner[1], generics), generics)
            case "genericLenArray" if isinstance(inner, list) and len(inner) == 2:
                return self.array(inner[0], self.length({"generic": inner[1]}, generics), generics)
            case "extensions":
                kinds = self.defined(inner, (), generics)
                if isinstance(kinds, shapes.Enum):
                    return shapes.Extensions(kinds)
            case "prefixed" if isinstance(inner, list) and len(inner) == 2 and inner[1] in shapes.PREFIXES:
                return self.prefixed(inner[0], inner[1], generics)
            case "pad" if isinstance(inner, int) and inner >= 0:
                return shapes.Pad(inner)
        if kind == "Codama":
            raise Unfit(str(inner), "a Codama node that is read here (docs/reference/decoders)")
        raise Unfit({kind: inner}, f"a type that borsh knows ({_KNOWN})")

    def called(self, name: str, generics: Generics) -> Shape:
        """Return a type given only by its name: a scalar, or one of the IDL's types."""
        name = _ALIASES.get(name, name)
        if name in generics:
            return self.generic(name, generics)
        if name in self.types or type_text.is_text(name):
            return self.defined(name, (), generics)
        simple = self.simple(name)
        if simple is None:
            raise Unfit(name, 'a scalar, "pubkey", "string", "bytes", a type of this IDL or an object')
        return simple

    def simple(self, name: str) -> Shape | None:
        if name in _WORDS:
            self.warn(Unfit(name, "a type of one size everywhere"), f"read as {_WORDS[name]}, as borsh writes it")
            name = _WORDS[name]
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
        return None

    def wrapped(self, kind: str, inner: object, generics: Generics, prefix: str | None = None) -> Shape:
        item = self.shape(inner, generics)
        more = (prefix,) if prefix else ()
        if kind == "vec" and _is_byte(item):
            return shapes.Blob(None, prefix=prefix or "u32")
        return _WRAPPERS[kind](item, *more)

    def prefixed(self, given: object, prefix: str, generics: Generics) -> Shape:
        """Return a text, bytes, list or option whose length or tag has another type than in borsh."""
        if given == "string":
            return shapes.Text(prefix)
        if given == "bytes":
            return shapes.Blob(None, prefix=prefix)
        if isinstance(given, dict) and len(given) == 1:
            ((kind, inner),) = given.items()
            if kind in _PREFIXED:
                return self.wrapped(kind, inner, generics, prefix)
        raise Unfit(given, f"something with a {prefix} before it")

    def generic(self, name: object, generics: Generics) -> Shape:
        argument = generics.get(str(name))
        if argument is None or not isinstance(argument.value, shapes._Shape):
            raise Unfit(name, "the name of a generic type that is given")
        return argument.value

    def argument(self, given: object, generics: Generics) -> Argument:
        """Return a generic argument. A const that is passed on by name looks like a type."""
        kind = given.get("type", given) if isinstance(given, dict) else given
        name = kind.get("generic") if isinstance(kind, dict) and set(kind) == {"generic"} else kind
        if isinstance(name, str) and name in generics:
            return generics[name]
        if isinstance(kind, dict) and isinstance(value := kind.get("value"), int | str):
            return Argument(f"={value}", value)
        text = _written(kind, generics, 0)
        if len(text) > ARGUMENTS_MAX:
            raise Unfit("generic arguments that grow", f"at most {ARGUMENTS_MAX} characters of them")
        return Argument(text, self.shape(kind, generics))

    def length(self, given: object, generics: Generics) -> int:
        name = given.get("generic") if isinstance(given, dict) else given
        if isinstance(name, str) and name in generics:
            value = generics[name].value
            given = value if isinstance(value, int | str) else given
        elif isinstance(name, str):
            given = self.constants.get(name, given)
        try:
            length = int(given) if isinstance(given, int | str) and not isinstance(given, bool) else -1
        except ValueError:
            length = -1
        if not 0 <= length <= shapes.SIZE_MAX:
            raise Unfit(given, f"an array length from 0 to {shapes.SIZE_MAX}")
        return length

    def array(self, item: object, length: int, generics: Generics) -> Shape:
        shape = self.shape(item, generics)
        if length > 32 and _is_byte(shape):
            return shapes.Blob(length)
        return shapes.Array(shape, length)

    def defined(self, name: object, arguments: Sequence[Argument], generics: Generics) -> Shape:
        """Return a named type, read once. With generic arguments, it is read once per set of arguments.

        A type that is already being read contains itself, and gets a link. Raises Unfit for a type that the IDL lacks.
        """
        if isinstance(name, str) and name not in self.types and not arguments:
            if name in generics:
                return self.generic(name, generics)
            if type_text.is_text(name):
                read = type_text.parse(name)
                if read is None:
                    raise Unfit(name, "a type, or Rust text of one")
                return self._shape(read, generics)
            simple = self.simple(_ALIASES.get(name, name))
            if simple is not None:
                return simple
        if not isinstance(name, str) or name not in self.types:
            raise Unfit(name, "the name of a type in this IDL")
        key = name, ",".join(argument.text for argument in arguments)
        if key in self.known:
            return self.known[key]
        if key in self.links:
            return self.links[key]
        if len(self.known) + len(self.links) >= TYPES_MAX:
            raise Unfit(name, f"at most {TYPES_MAX} types")
        if key in self.open or len(self.open) >= OPEN_MAX or self.depth >= OPEN_DEPTH_MAX:
            link = self.links[key] = shapes.Link()
            if key not in self.open:
                self.later.append((name, tuple(arguments)))
            return link
        return self.opened(name, arguments)

    def top(self, name: object) -> Shape:
        """Return the type of an account or event, never a link to it. Raises Unfit for a type that the IDL lacks."""
        if not isinstance(name, str) or name not in self.types:
            raise Unfit(name, "the name of a type in this IDL")
        shape = self.known.get((name, "")) or self.opened(name, ())
        return shape.target if isinstance(shape, shapes.Link) else shape

    def opened(self, name: str, arguments: Sequence[Argument]) -> Shape:
        """Read a named type. If there is a link to it, set the link's target."""
        key = name, ",".join(argument.text for argument in arguments)
        path, self.path = self.path, ["types", name]
        self.open.append(key)
        try:
            shape = self.bounded(self.named_type(name, arguments))
        except Unfit as problem:
            self.warn(problem)
            shape = shapes.Unreadable()
        except ShapeError as error:
            self.warn(Unfit(str(error), "a layout that fits an account"))
            shape = shapes.Unreadable()
        self.known[key] = shape
        if key in self.links:
            self.links[key].target = shape
        self.open.pop()
        self.path = path
        return shape

    def finish(self) -> None:
        """Read the types that were left for later.

        A link to a type that may take no bytes is refused, because it could be endless.
        """
        while self.later:
            name, arguments = self.later.pop()
            if (name, ",".join(argument.text for argument in arguments)) not in self.known:
                self.opened(name, arguments)
        for (name, _), link in self.links.items():
            if not link.target.floor and not link.target.unreadable:
                self.path = ["types", name]
                self.warn(Unfit("a type that may take no bytes", "one that takes a byte at least"))
                link.target = shapes.Unreadable()

    def named_type(self, name: str, arguments: Sequence[Argument]) -> Shape:
        entry = self.types[name]
        body = entry["type"]
        generics = dict(zip(self.parameters(entry, len(arguments)), arguments, strict=False))
        match body.get("kind"):
            case "struct":
                struct = self.struct(name, body.get("fields") or [], generics)
                return self.in_memory(struct, entry)
            case "enum":
                return self.enum(name, body.get("variants"), generics, body.get("prefix", "u8"))
            case "alias":
                return self.shape(body.get("value"), generics)
            case "type":
                return self.shape(body.get("alias"), generics)
        raise Unfit(body.get("kind"), 'the kind "struct", "enum" or "type"')

    def in_memory(self, struct: shapes.Struct, entry: dict[str, Any]) -> shapes.Struct:
        """Return a struct as it is in memory. A zero-copy type gets its padding."""
        layout = entry.get("repr")
        if layout is not None and not isinstance(layout, dict):
            raise Unfit(layout, 'a repr such as {"kind": "c"}')
        if "bytemuck" in str(entry.get("serialization")):
            return laid_out(struct, layout or {})
        struct.repr = layout
        return struct

    def parameters(self, entry: dict[str, Any], count: int) -> list[str]:
        """Return the names of a type's generics. If an old IDL declares none, they are the names that are not types."""
        declared = self.listed(entry.get("generics"), "generics")
        if declared or not count:
            return [str(each.get("name") if isinstance(each, dict) else each) for each in declared]
        found: list[str] = []
        self.undeclared(entry["type"], found, 0)
        if len(found) != count or (count > 1 and found != sorted(found)):
            raise Unfit(
                f"{count} generic arguments", f"a type whose parameters are certain, not {', '.join(found) or 'none'}"
            )
        return found

    def undeclared(self, given: object, found: list[str], depth: int) -> None:
        """Append to `found`, in order, the names in `given` that are not types of this IDL."""
        if depth > DEPTH_MAX:
            return
        if isinstance(given, list):
            for each in given:
                self.undeclared(each, found, depth + 1)
        elif isinstance(given, dict):
            for key, value in given.items():
                if key == "defined":
                    self.undeclared_name(value.get("name") if isinstance(value, dict) else value, found)
                elif key == "array" and isinstance(value, list) and len(value) == 2:
                    self.undeclared(value[0], found, depth + 1)
                    if isinstance(value[1], str) and not value[1].isdecimal() and value[1] not in self.constants:
                        self.undeclared_name(value[1], found)
                if key not in ("name", "docs", "array"):
                    self.undeclared(value, found, depth + 1)

    def undeclared_name(self, name: object, found: list[str]) -> None:
        for word in re.findall(r"[A-Za-z_][A-Za-z0-9_]*", name) if isinstance(name, str) else ():
            alone = word not in self.types and word not in found and re.fullmatch(r"[A-Z][A-Z0-9]{0,7}", word)
            if alone and self.simple(word) is None:
                found.append(word)

    def enum(self, name: str, variants: object, generics: Generics, prefix: str) -> shapes.Enum:
        if not isinstance(variants, list) or len(variants) > 256:
            raise Unfit(variants, "a list of at most 256 variants")
        if prefix not in shapes.PREFIXES:
            raise Unfit(prefix, "the type of an enum's index")
        return shapes.Enum(name, tuple([self.variant(n, each, generics) for n, each in enumerate(variants)]), prefix)

    def variant(self, index: int, given: Any, generics: Generics) -> shapes.Variant:
        told = isinstance(given, dict) and isinstance(given.get("name"), str)
        name, fields = (given["name"], given.get("fields")) if told else (f"variant_{index}", ["unknown"])
        self.path.append(name)
        try:
            body = self.struct(name, fields, generics) if fields else None
        except (Unfit, ShapeError) as problem:
            self.warn(problem if isinstance(problem, Unfit) else Unfit(str(problem), "a variant that fits an account"))
            body = shapes.Struct(name, (Field("0", shapes.Unreadable()),), named=False)
        if not told:
            self.warn(Unfit(given, 'a variant: an object with a "name"'))
        self.path.pop()
        return shapes.Variant(name, body)


def _is_byte(shape: Shape) -> bool:
    return isinstance(shape, shapes.Scalar) and shape.kind == "u8"


def _written(given: object, generics: Generics, depth: int) -> str:
    """Return a text that is equal for equal types, with generic names replaced by their arguments."""
    if depth > DEPTH_MAX:
        return "…"
    if isinstance(given, str):
        return generics[given].text if given in generics else given
    if isinstance(given, list):
        return f"[{','.join(_written(each, generics, depth + 1) for each in given)}]"
    if isinstance(given, dict):
        if set(given) == {"generic"} and str(given["generic"]) in generics:
            return generics[str(given["generic"])].text
        return f"{{{','.join(f'{key}:{_written(value, generics, depth + 1)}' for key, value in given.items())}}}"
    return msgspec.json.encode(given).decode()
