"""Parses IDL files: Anchor's (the legacy format, and that of 0.30 and later), Shank's and Codama's.

An entry or type that can't be parsed affects only its users, and causes a warning. The rest of the program can be used.
"""

import hashlib
import itertools
import re
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Final, NamedTuple

import msgspec

from headrace.decoders import codama, shank, shapes
from headrace.decoders.idl_types import TypeReader, Unfit, snake_case
from headrace.model.errors import ConfigError
from headrace.model.keys import is_key

IDL_BYTES_MAX: Final = 4 * 1024 * 1024
_Byte = Annotated[int, msgspec.Meta(ge=0, le=255)]
_BYTES_NESTED_MAX: Final = 100
_TOKEN: Final = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)
_GUESSED_DIGITS_MAX: Final = 6


class Item(NamedTuple):
    """One event, account or instruction: its name, its discriminator, and the shape of the remaining bytes.

    - `discriminator`: precedes the shape or, if `inside`, is part of it at `mark_at`.
    - `accounts`: an instruction's account names, in order.
    - `forms`: the account names for other numbers of accounts.
    - `sizes`: lengths that identify an account on their own (SPL Token, Raydium AMM v4).
    - `guesses`: other possible discriminators, because the legacy format does not keep the name that Anchor hashed.
    - `older`: the item has the discriminator of a newer item, and is used for data of exactly its length.
    - `strict`: an account must have one of the `sizes` and all of `marks`.
    - `marks`: (offset, bytes) that identify an account.
    """

    name: str
    discriminator: bytes
    shape: shapes.Struct
    accounts: tuple[str, ...] = ()
    forms: tuple[tuple[str, ...], ...] = ()
    sizes: tuple[int, ...] = ()
    mark_at: int = 0
    inside: bool = False
    guesses: tuple[bytes, ...] = ()
    older: bool = False
    strict: bool = False
    marks: tuple[tuple[int, bytes], ...] = ()


class Idl(NamedTuple):
    """One program's interface. `aliases` maps a struct's name to other names of its fields.

    `warnings` say what could not be parsed. Each names the program, the place, what was found and what was expected.
    """

    name: str
    address: str | None
    instructions: tuple[Item, ...]
    accounts: tuple[Item, ...]
    events: tuple[Item, ...]
    aliases: dict[str, dict[str, str]]
    warnings: tuple[str, ...] = ()


def discriminator(namespace: str, name: str) -> bytes:
    """Return the 8 bytes that Anchor derives if an IDL does not state them."""
    return hashlib.sha256(f"{namespace}:{name}".encode()).digest()[:8]


def parse(text: bytes, name: str, *supplements: bytes) -> Idl:
    """Parse one IDL file called `name`, and its supplements, which add or replace parts.

    Raises ConfigError naming the file and the expected form if the file is not an IDL at all.
    """
    documents = [_document(text, name), *(_document(more, f"{name} (supplement)") for more in supplements)]
    return _Reader(name, documents).idl()


def _document(text: bytes, name: str) -> dict[str, Any]:
    if len(text) > IDL_BYTES_MAX:
        raise ConfigError(f"IDL {name}", f"{len(text)} bytes", f"at most {IDL_BYTES_MAX}")
    try:
        document = _json(_utf8(text))
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise ConfigError(f"IDL {name}", f"no JSON ({error})", "an Anchor IDL as JSON") from None
    if not isinstance(document, dict):
        raise ConfigError(f"IDL {name}", f"a JSON {type(document).__name__}", "an object with instructions and types")
    return document


def _utf8(text: bytes) -> bytes:
    """Return the text as UTF-8 without a byte order mark. A text with a UTF-16 mark is converted."""
    if text.startswith((b"\xff\xfe", b"\xfe\xff")):
        return text.decode("utf-16").encode()
    return text.removeprefix(b"\xef\xbb\xbf")


def _json(text: bytes) -> Any:
    try:
        return msgspec.json.decode(text)
    except RecursionError:
        return msgspec.json.decode(_flattened(text))


def _flattened(text: bytes) -> bytes:
    """Return the JSON with null in place of values nested deeper than any type that can be parsed."""
    kept: list[bytes] = []
    depth = start = 0
    for match in _TOKEN.finditer(text):
        token = match[0]
        if token in (b"[", b"{"):
            depth += 1
            if depth == _BYTES_NESTED_MAX:
                kept += text[start : match.start()], b"null"
        elif token in (b"]", b"}"):
            if depth == _BYTES_NESTED_MAX:
                start = match.end()
            depth -= 1
    if depth >= _BYTES_NESTED_MAX:
        raise RecursionError("nested without an end")
    return b"".join((*kept, text[start:]))


def guessed(name: str) -> Iterator[str]:
    """Yield the names that the legacy format may have turned into `name`.

    In camel case `log_1` and `log1` look alike, and so do `x_y` and `xy`.
    """
    words = re.sub(r"(?<=[A-Za-z0-9])(?=[A-Z])", "_", name).lower()
    for base in dict.fromkeys((snake_case(name), words)):
        pieces = re.split(r"(?<=[a-z0-9])(?=[0-9])", base)
        if len(pieces) - 1 <= _GUESSED_DIGITS_MAX:
            for glue in itertools.product(("", "_"), repeat=len(pieces) - 1):
                yield pieces[0] + "".join(map("".join, zip(glue, pieces[1:], strict=True)))
        else:
            yield from (base, re.sub(r"(?<=[a-z])(?=[0-9])", "_", base))
    yield name


class _Reader:
    """Parses one program's documents: the IDL, then its supplements."""

    def __init__(self, name: str, documents: list[dict[str, Any]]) -> None:
        if codama.is_codama(documents[0]):
            documents[0] = codama.as_anchor(documents[0])
        self.documents = documents
        self.legacy = not documents[0].get("address")
        self.named: dict[str, dict[str, Any]] = {}
        self.types = TypeReader(name, self.named, legacy=self.legacy)
        self.shank = shank.is_shank(documents[0])

    def idl(self) -> Idl:
        for document in self.documents:
            self.name_types(document)
        aliases: dict[str, dict[str, str]] = {}
        for document in self.documents:
            aliases |= self.aliases(document)
        address = self.address()
        instructions = self.merged("instructions", self.instruction)
        accounts = self.merged("accounts", self.account)
        events = self.merged("events", self.event)
        self.types.finish()
        if not (instructions or accounts or events):
            self.types.path = []
            self.types.warn(Unfit("no instructions, accounts and events", "some of them"), "nothing is decoded by it")
        return Idl(self.types.name, address, instructions, accounts, events, aliases, tuple(self.types.warnings))

    def name_types(self, document: dict[str, Any]) -> None:
        for kind in ("types", "accounts"):
            for item in self.items(document, kind):
                if "type" in item and isinstance(item["type"], dict):
                    self.named[item["name"]] = item
                elif kind == "types":
                    self.types.path = [kind, item["name"]]
                    self.types.warn(Unfit(item.get("type"), 'a type: an object with a "kind"'), "there is no such type")
        for item in self.items(document, "constants"):
            self.types.constants[item["name"]] = str(item.get("value"))

    def aliases(self, document: dict[str, Any]) -> dict[str, dict[str, str]]:
        try:
            return msgspec.convert(document.get("aliases", {}), dict[str, dict[str, str]])
        except msgspec.ValidationError as error:
            self.types.path = ["aliases"]
            self.types.warn(Unfit(str(error), "objects of strings"), "no other names")
            return {}

    def address(self) -> str | None:
        document = self.documents[0]
        metadata = document.get("metadata")
        given = document.get("address") or (metadata.get("address") if isinstance(metadata, dict) else None)
        if given is not None and not (isinstance(given, str) and is_key(given)):
            shown = given if isinstance(given, str) else repr(given)
            raise ConfigError(f"IDL {self.types.name}: address", shown[:80], "a program id (base58 of 32 bytes)")
        return given

    def merged(self, kind: str, read: Callable[[dict[str, Any]], Item]) -> tuple[Item, ...]:
        """Return all items of a kind. A later document's item replaces an item with the same name and discriminator."""
        found: dict[tuple[str, bytes, int | None], Item] = {}
        for document in self.documents:
            for entry in self.items(document, kind):
                self.types.path = [kind, entry["name"]]
                try:
                    item = read(entry)
                except Unfit as problem:
                    self.types.warn(problem, "left out")
                else:
                    found[item.name, item.discriminator, item.shape.size if item.older else None] = item
        return tuple(found.values())

    def items(self, document: dict[str, Any], kind: str) -> list[dict[str, Any]]:
        """Return the entries that have a name. Faults of other entries are recorded once."""
        self.types.path = [kind]
        try:
            listed = self.types.listed(document.get(kind), kind)
        except Unfit as problem:
            self.types.warn(problem, "left out")
            return []
        named = []
        for index, item in enumerate(listed):
            if isinstance(item, dict) and isinstance(item.get("name"), str):
                named.append(item)
            else:
                self.types.path = [kind, str(index)]
                self.types.warn(Unfit(item, 'an object with a "name"'), "left out")
        return named

    def mark(self, entry: dict[str, Any], derived: bytes) -> bytes:
        """Return the stated discriminator, or the derived one if none is stated.

        Raises Unfit if it is not a list of bytes.
        """
        given = entry.get("discriminator")
        if given is None:
            given = shank.discriminant(entry.get("discriminant"))
        if given is None:
            return derived
        try:
            return bytes(msgspec.convert(given, list[_Byte]))
        except msgspec.ValidationError:
            raise Unfit(given, "a discriminator: a list of bytes") from None

    def instruction(self, entry: dict[str, Any]) -> Item:
        plain = self.legacy and "discriminator" not in entry
        name = snake_case(entry["name"]) if plain else entry["name"]
        mark = self.mark(entry, discriminator("global", name))
        derived = plain and "discriminant" not in entry
        if derived and self.shank:
            raise Unfit("no discriminant", "the number that marks this instruction")
        guesses = dict.fromkeys(discriminator("global", each) for each in guessed(entry["name"])) if derived else {}
        accounts = tuple(self.account_names(entry.get("accounts")))
        others = self.types.listed(entry.get("other_accounts"), "account lists")
        forms = tuple(tuple(self.account_names(form)) for form in others)
        shape = self.fields(name, entry.get("args"))
        return Item(name, mark, shape, accounts, forms, guesses=tuple(guesses), inside=entry.get("inside") is True)

    def fields(self, name: str, given: object) -> shapes.Struct:
        """Return a struct of these fields. If they are not a list, nothing in the struct can be read."""
        try:
            return self.types.struct(name, given or [])
        except Unfit as problem:
            self.types.warn(problem)
        except shapes.ShapeError as error:
            self.types.warn(Unfit(str(error), "a layout that fits an account"))
        return shapes.Struct(name, (shapes.Field("value", shapes.Unreadable()),))

    def account_names(self, accounts: object, prefix: str = "") -> list[str]:
        """Return account names in order. Names in a group are `group.name`."""
        try:
            listed = self.types.listed(accounts, "accounts")
        except Unfit as problem:
            self.types.warn(problem, "accounts without names")
            return []
        names: list[str] = []
        for index, account in enumerate(listed):
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
                names.append(f"{prefix}account_{index}")
                self.types.warn(Unfit(account, 'an account: an object with a "name"'), f"it is called {names[-1]}")
        return names

    def laid_over(self, entry: dict[str, Any]) -> shapes.Struct:
        """Return the struct of an account or event; its raw bytes if the IDL lacks the type."""
        name = entry["name"]
        try:
            shape = self.types.top(entry.get("shape", name))
        except Unfit as problem:
            self.types.warn(problem, "its bytes are shown as they are")
            shape = shapes.Unreadable()
        if isinstance(shape, shapes.Struct):
            return shape
        if isinstance(shape, shapes.Unreadable):
            return shapes.Struct(name, (shapes.Field("raw", shapes.Blob(None, rest=True)),))
        return shapes.Struct(name, (shapes.Field("value", shape),))

    def account(self, entry: dict[str, Any]) -> Item:
        name = entry["name"]
        shape = self.laid_over(entry)
        if "marks" in entry:
            return self.account_by_marks(entry, shape)
        if "sizes" in entry:
            return self.account_by_size(entry, shape)
        if self.shank and "discriminator" not in entry:
            own = shank.own_mark(name, shape)
            if own is None:
                raise Unfit("no discriminator", f"one, or a first field whose type is an enum with a variant {name}")
            return Item(name, own, shape, inside=True)
        mark = self.mark(entry, discriminator("account", name))
        inside = entry.get("inside") is True or (self.shank and shank.holds(shape, mark))
        return Item(name, mark, shape, inside=inside, older=entry.get("older") is True)

    def account_by_size(self, entry: dict[str, Any], shape: shapes.Struct) -> Item:
        try:
            sizes = msgspec.convert(entry["sizes"], tuple[int, ...])
            mark_at = msgspec.convert(entry.get("mark_at", 0), Annotated[int, msgspec.Meta(ge=0)])
            mark = bytes(msgspec.convert(entry.get("discriminator", []), list[_Byte]))
        except msgspec.ValidationError as error:
            raise Unfit(str(error), "sizes and discriminator as lists of numbers, mark_at as a number") from None
        return Item(entry["name"], mark, shape, sizes=sizes, mark_at=mark_at, inside=True)

    def account_by_marks(self, entry: dict[str, Any], shape: shapes.Struct) -> Item:
        try:
            sizes = msgspec.convert(entry.get("sizes", []), tuple[int, ...])
            marks = msgspec.convert(entry["marks"], tuple[tuple[Annotated[int, msgspec.Meta(ge=0)], list[_Byte]], ...])
        except msgspec.ValidationError as error:
            raise Unfit(str(error), "sizes as a list of numbers, marks as a list of places and bytes") from None
        if not sizes and not marks:
            raise Unfit("no discriminator", "one, or a size")
        strict = tuple((at, bytes(mark)) for at, mark in marks)
        return Item(entry["name"], b"", shape, sizes=sizes, inside=True, strict=True, marks=strict)

    def event(self, entry: dict[str, Any]) -> Item:
        name = entry["name"]
        shape = self.fields(name, entry["fields"]) if "fields" in entry else self.laid_over(entry)
        mark = self.mark(entry, discriminator("event", name))
        return Item(name, mark, shape, inside=entry.get("inside") is True, older=entry.get("older") is True)
