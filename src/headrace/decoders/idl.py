"""Reads Anchor IDL files, the legacy format and that of 0.30 and later."""

import hashlib
from typing import Annotated, Any, Final, NamedTuple

import msgspec

from headrace.decoders import shapes
from headrace.decoders.idl_types import TypeReader, snake_case
from headrace.model.errors import ConfigError
from headrace.model.keys import is_key

IDL_BYTES_MAX: Final = 4 * 1024 * 1024
_Byte = Annotated[int, msgspec.Meta(ge=0, le=255)]


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
    """Reads one program's documents: the IDL, then what adds to it."""

    def __init__(self, name: str, documents: list[dict[str, Any]]) -> None:
        self.documents = documents
        self.legacy = not documents[0].get("address")
        self.named: dict[str, dict[str, Any]] = {}
        self.types = TypeReader(name, self.named, legacy=self.legacy)
        self.fail = self.types.fail

    def idl(self) -> Idl:
        for document in self.documents:
            for kind in ("types", "accounts"):
                for item in self.items(document, kind):
                    if "type" in item and isinstance(item["type"], dict):
                        self.named[item["name"]] = item
        aliases: dict[str, dict[str, str]] = {}
        for document in self.documents:
            aliases |= self.aliases(document)
        return Idl(
            self.types.name,
            self.address(),
            self.merged("instructions", self.instruction),
            self.merged("accounts", self.account),
            self.merged("events", self.event),
            aliases,
        )

    def aliases(self, document: dict[str, Any]) -> dict[str, dict[str, str]]:
        self.types.path = ["aliases"]
        try:
            return msgspec.convert(document.get("aliases", {}), dict[str, dict[str, str]])
        except msgspec.ValidationError as error:
            raise self.fail(str(error), "objects of strings") from None

    def address(self) -> str | None:
        document = self.documents[0]
        metadata = document.get("metadata")
        given = document.get("address") or (metadata.get("address") if isinstance(metadata, dict) else None)
        if given is not None and not (isinstance(given, str) and is_key(given)):
            self.types.path = ["address"]
            raise self.fail(given, "a program id (base58 of 32 bytes)")
        return given

    def merged(self, kind: str, read: Any) -> tuple[Item, ...]:
        """All items of a kind; a later document's item replaces an earlier one of the same name and discriminator."""
        found: dict[tuple[str, bytes], Item] = {}
        for document in self.documents:
            for entry in self.items(document, kind):
                self.types.path = [kind, entry["name"]]
                item: Item = read(entry)
                found[item.name, item.discriminator] = item
        return tuple(found.values())

    def items(self, document: dict[str, Any], kind: str) -> list[dict[str, Any]]:
        self.types.path = [kind]
        items = self.types.listed(document.get(kind), kind)
        for index, item in enumerate(items):
            if not isinstance(item, dict) or not isinstance(item.get("name"), str):
                self.types.path = [kind, str(index)]
                raise self.fail(item, 'an object with a "name"')
        return items

    def mark(self, entry: dict[str, Any], namespace: str, hashed: str) -> bytes:
        given = entry.get("discriminator")
        if given is None and isinstance(entry.get("discriminant"), dict):  # shank
            given = [entry["discriminant"].get("value")]
        if given is None:
            return discriminator(namespace, hashed)
        try:
            return bytes(msgspec.convert(given, list[_Byte]))
        except msgspec.ValidationError:
            raise self.fail(given, "a discriminator: a list of bytes") from None

    def instruction(self, entry: dict[str, Any]) -> Item:
        plain = self.legacy and "discriminator" not in entry
        name = snake_case(entry["name"]) if plain else entry["name"]
        shape = self.types.struct(name, entry.get("args") or [])
        accounts = tuple(self.account_names(entry.get("accounts")))
        forms = tuple(
            tuple(self.account_names(form)) for form in self.types.listed(entry.get("other_accounts"), "account lists")
        )
        return Item(name, self.mark(entry, "global", name), shape, accounts, forms)

    def account_names(self, accounts: object, prefix: str = "") -> list[str]:
        """Names in order; those of a composite are `group.name`."""
        names: list[str] = []
        for account in self.types.listed(accounts, "accounts"):
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
        shape = self.types.defined(entry.get("shape", name))
        if not isinstance(shape, shapes.Struct):
            raise self.fail(name, "a struct")
        if "sizes" in entry:
            return self.account_by_size(entry, shape)
        return Item(name, self.mark(entry, "account", name), shape)

    def account_by_size(self, entry: dict[str, Any], shape: shapes.Struct) -> Item:
        try:
            sizes = msgspec.convert(entry["sizes"], tuple[int, ...])
            mark_at = msgspec.convert(entry.get("mark_at", 0), Annotated[int, msgspec.Meta(ge=0)])
            mark = bytes(msgspec.convert(entry.get("discriminator", []), list[_Byte]))
        except msgspec.ValidationError as error:
            raise self.fail(str(error), "sizes and discriminator as lists of numbers, mark_at as a number") from None
        return Item(entry["name"], mark, shape, sizes=sizes, mark_at=mark_at, inside=True)

    def event(self, entry: dict[str, Any]) -> Item:
        name = entry["name"]
        if "fields" in entry:
            shape: shapes.Shape = self.types.struct(name, entry["fields"] or [])
        else:
            shape = self.types.defined(entry.get("shape", name))
        if not isinstance(shape, shapes.Struct):
            raise self.fail(name, "a struct")
        return Item(name, self.mark(entry, "event", name), shape, inside=entry.get("inside") is True)
