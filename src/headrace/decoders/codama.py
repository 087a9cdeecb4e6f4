"""Converts Codama root nodes to the IDL that Anchor would write for the same program.

Names get the case of an Anchor IDL: fields and instructions in snake case; accounts, events, types and variants in
Pascal case. A node without an equivalent borsh type becomes a type that is refused, with the node's name in the
warning.
"""

from collections.abc import Mapping
from typing import Any, Final

import pybase64

from headrace.decoders import shapes
from headrace.decoders.idl_types import snake_case
from headrace.model.keys import b58decode

Node = Mapping[str, Any]

DEPTH_MAX: Final = 64
_ANCHORS_NAME: Final = "discriminator"
"""Codama's name for a field with an Anchor discriminator, which is not a field of the program's own struct."""


def is_codama(document: Node) -> bool:
    """Return whether the document is a Codama root node."""
    return document.get("kind") == "rootNode" and isinstance(document.get("program"), dict)


def as_anchor(document: Node) -> dict[str, Any]:
    """Return the program of a root node as an Anchor IDL. Never raises: the IDL parser refuses malformed parts."""
    return _Program(document["program"]).idl()


def _listed(node: Node, key: str) -> list[Any]:
    found = node.get(key)
    return found if isinstance(found, list) else []


def _node(given: object) -> Node:
    return given if isinstance(given, dict) else {}


def _pascal(name: object) -> Any:
    return name[:1].upper() + name[1:] if isinstance(name, str) else name


def _snake(name: object) -> Any:
    return snake_case(name) if isinstance(name, str) else name


class _Program:
    """Converter of one program node. Structs and enums inside other types get generated names."""

    def __init__(self, program: Node) -> None:
        self.program = program
        self.types: list[dict[str, Any]] = []
        self.enums = {
            each["name"]: _node(each.get("type"))
            for each in _listed(program, "definedTypes")
            if isinstance(each, dict) and isinstance(each.get("name"), str)
        }

    def idl(self) -> dict[str, Any]:
        instructions = [self.instruction(_node(each)) for each in _listed(self.program, "instructions")]
        accounts = [self.account(_node(each)) for each in _listed(self.program, "accounts")]
        events = [self.event(_node(each)) for each in _listed(self.program, "events")]
        for each in _listed(self.program, "definedTypes"):
            self.define(_pascal(_node(each).get("name")), _node(_node(each).get("type")))
        return {
            "address": self.program.get("publicKey"),
            "instructions": instructions,
            "accounts": accounts,
            "events": events,
            "types": self.types,
        }

    # -- types --

    def define(self, name: Any, node: Node) -> None:
        """Add a named type."""
        if node.get("kind") == "structTypeNode":
            body: dict[str, Any] = {"kind": "struct", "fields": self.fields(_listed(node, "fields"), 0)}
        elif node.get("kind") == "enumTypeNode":
            body = self.enum(node)
        else:
            body = {"kind": "type", "alias": self.type(node, 0)}
        self.types.append({"name": name, "type": body})

    def inside(self, node: Node) -> dict[str, Any]:
        """Add a struct or enum that has no name of its own. Return a reference to it."""
        name = f"(inside {len(self.types)})"
        self.types.append({})
        at = len(self.types) - 1
        self.define(name, node)
        self.types[at] = self.types.pop()
        return {"defined": {"name": name}}

    def fields(self, nodes: list[Any], depth: int) -> list[dict[str, Any]]:
        return [
            {"name": _snake(_node(each).get("name", "")), "type": self.type(_node(_node(each).get("type")), depth + 1)}
            for each in nodes
        ]

    def enum(self, node: Node) -> dict[str, Any]:
        """Return variants in the order of their numbers. A number without a node becomes an unreadable variant."""
        numbered: dict[int, dict[str, Any]] = {}
        number = -1
        for each in map(_node, _listed(node, "variants")):
            given = each.get("discriminator")
            number = given if isinstance(given, int) else number + 1
            numbered[number] = self.variant(each)
        if not all(0 <= number < 256 for number in numbered):
            return {"kind": f"enum with the numbers {sorted(numbered)[:3]}…"}
        variants = [
            numbered.get(n, {"name": f"variant_{n}", "fields": ["no such variant"]})
            for n in range(max(numbered, default=-1) + 1)
        ]
        return {"kind": "enum", "variants": variants, "prefix": _number(_node(node.get("size")))}

    def variant(self, node: Node) -> dict[str, Any]:
        name = _pascal(node.get("name"))
        match node.get("kind"):
            case "enumStructVariantTypeNode":
                struct = _node(node.get("struct"))
                if struct.get("kind") == "structTypeNode":
                    return {"name": name, "fields": self.fields(_listed(struct, "fields"), 0)}
                return {"name": name, "fields": [self.type(struct, 0)]}
            case "enumTupleVariantTypeNode":
                items = _listed(_node(node.get("tuple")), "items")
                return {"name": name, "fields": [self.type(_node(item), 0) for item in items]}
            case "enumEmptyVariantTypeNode":
                return {"name": name}
        return {"name": name, "fields": [_unsupported(node)]}

    def type(self, node: Node, depth: int) -> Any:
        """Return a type expression."""
        if depth > DEPTH_MAX:
            return _unsupported({"kind": "nodes that nest too deep"})
        kind = node.get("kind")
        inner = _node(node.get("item", node.get("type")))
        match kind:
            case "numberTypeNode" | "amountTypeNode" | "solAmountTypeNode" | "dateTimeTypeNode":
                return _number(node)
            case "booleanTypeNode":
                size = _number(_node(node.get("size")))
                return "bool" if size == "u8" else size
            case "publicKeyTypeNode":
                return "pubkey"
            case "bytesTypeNode" | "stringTypeNode":
                return "rest"
            case "structTypeNode" | "enumTypeNode":
                return self.inside(node)
            case "definedTypeLinkNode" if "program" not in node:
                return {"defined": {"name": _pascal(node.get("name"))}}
            case "tupleTypeNode":
                return {"tuple": [self.type(_node(item), depth + 1) for item in _listed(node, "items")]}
            case "optionTypeNode":
                return {
                    "prefixed": [
                        {"coption" if node.get("fixed") else "option": self.type(inner, depth + 1)},
                        _number(_node(node.get("prefix"))),
                    ]
                }
            case "zeroableOptionTypeNode":
                return self.type(inner, depth + 1)
            case "arrayTypeNode" | "setTypeNode":
                return self.counted(self.type(inner, depth + 1), _node(node.get("count")))
            case "mapTypeNode":
                pair = [self.type(_node(node.get(part)), depth + 1) for part in ("key", "value")]
                return self.counted({"tuple": pair}, _node(node.get("count")))
            case "sizePrefixTypeNode" if inner.get("kind") in ("bytesTypeNode", "stringTypeNode"):
                text = "string" if (inner.get("kind"), inner.get("encoding")) == ("stringTypeNode", "utf8") else "bytes"
                return {"prefixed": [text, _number(_node(node.get("prefix")))]}
            case "fixedSizeTypeNode" if inner.get("kind") in ("bytesTypeNode", "stringTypeNode"):
                return {"array": ["u8", node.get("size")]}
            case "hiddenPrefixTypeNode" | "hiddenSuffixTypeNode":
                return self.with_hidden(node, inner, depth)
        return _unsupported(node)

    def counted(self, item: Any, count: Node) -> Any:
        match count.get("kind"):
            case "fixedCountNode":
                return {"array": [item, count.get("value")]}
            case "prefixedCountNode":
                return {"prefixed": [{"vec": item}, _number(_node(count.get("prefix")))]}
            case "remainderCountNode":
                return {"items": item}
        return _unsupported(count)

    def with_hidden(self, node: Node, inner: Node, depth: int) -> Any:
        """Return the type of a value that follows or precedes constants. The bytes of the constants are skipped."""
        before = node.get("kind") == "hiddenPrefixTypeNode"
        constants = [self.constant(_node(each)) for each in _listed(node, "prefix" if before else "suffix")]
        if None in constants:
            return _unsupported(node)
        pad = {"name": "padding", "type": {"pad": sum(len(each or b"") for each in constants)}}
        value = {"name": "value", "type": self.type(inner, depth + 1)}
        name = f"(inside {len(self.types)})"
        fields = [each["type"] for each in ((pad, value) if before else (value, pad))]
        self.types.append({"name": name, "type": {"kind": "struct", "fields": fields}})
        return {"defined": {"name": name}}

    # -- instructions, accounts, events --

    def instruction(self, node: Node) -> dict[str, Any]:
        arguments = [_node(each) for each in _listed(node, "arguments")]
        marks, hidden = self.marks(node, arguments)
        entry: dict[str, Any] = {
            "name": _snake(node.get("name")),
            "accounts": [{"name": _snake(_node(each).get("name"))} for each in _listed(node, "accounts")],
            "discriminator": self.leading(marks),
        }
        if hidden:
            arguments = arguments[hidden:]
        else:
            entry["inside"] = True
        return {**entry, "args": self.fields(arguments, 0)}

    def account(self, node: Node) -> dict[str, Any]:
        name, data = _pascal(node.get("name")), _node(node.get("data"))
        entry: dict[str, Any] = {"name": name}
        fields = [_node(each) for each in _listed(data, "fields")] if data.get("kind") == "structTypeNode" else []
        marks, hidden = self.marks(node, fields)
        sizes = [each.get("size") for each in self.discriminators(node, "sizeDiscriminatorNode")]
        if marks is not None and (sizes or any(at for at, _ in marks)):
            entry |= {"marks": marks, "sizes": sizes}
            hidden = 0
        else:
            entry |= {"discriminator": self.leading(marks), "inside": not hidden}
        if fields:
            own = [each for each in fields[hidden:] if hidden or each.get("name") != _ANCHORS_NAME]
            if len(own) == len(fields) - hidden:
                self.types.append({"name": name, "type": {"kind": "struct", "fields": self.fields(own, 0)}})
                return entry
        self.define(name, data)
        return entry

    def event(self, node: Node) -> dict[str, Any]:
        name, data = _pascal(node.get("name")), _node(node.get("data"))
        constants = [self.constant(_node(each)) for each in _listed(data, "prefix")]
        if data.get("kind") == "hiddenPrefixTypeNode" and None not in constants:
            self.define(name, _node(data.get("type")))
            return {"name": name, "discriminator": list(b"".join(each or b"" for each in constants))}
        fields = [_node(each) for each in _listed(data, "fields")]
        marks, hidden = self.marks(node, fields)
        self.define(name, {"kind": "structTypeNode", "fields": fields[hidden:]} if fields else data)
        return {"name": name, "discriminator": self.leading(marks), "inside": not hidden}

    def discriminators(self, node: Node, kind: str) -> list[Node]:
        return [each for each in map(_node, _listed(node, "discriminators")) if each.get("kind") == kind]

    def marks(self, node: Node, fields: list[Node]) -> tuple[list[tuple[int, list[int]]] | None, int]:
        """Return (offset, bytes) of every discriminator but sizes, and how many leading fields are only discriminators.

        None instead of the list if the bytes of a discriminator are unknown.
        """
        found: list[tuple[int, list[int]]] = []
        by_name = {each.get("name"): each for each in fields}
        for each in self.discriminators(node, "fieldDiscriminatorNode"):
            field = _node(by_name.get(each.get("name")))
            value = self.bytes_of(_node(field.get("type")), _node(field.get("defaultValue")))
            if value is None or not isinstance(each.get("offset"), int):
                return None, 0
            found.append((each["offset"], list(value)))
        for each in self.discriminators(node, "constantDiscriminatorNode"):
            value = self.constant(_node(each.get("constant")))
            if value is None or not isinstance(each.get("offset"), int):
                return None, 0
            found.append((each["offset"], list(value)))
        named = {each.get("name") for each in self.discriminators(node, "fieldDiscriminatorNode")}
        hidden = 0
        for field in fields:
            instruction = field.get("kind") == "instructionArgumentNode"
            own = field.get("name") == _ANCHORS_NAME or (instruction and field.get("defaultValueStrategy") == "omitted")
            if field.get("name") not in named or not own:
                break
            hidden += 1
        return sorted(found), hidden if hidden == len(named) else 0

    def leading(self, marks: list[tuple[int, list[int]]] | None) -> Any:
        """Return the bytes that all marks together form at the start of the data.

        If they don't form such a prefix, return a text, which the IDL parser refuses.
        """
        joined: list[int] = []
        for at, value in marks or ():
            if at != len(joined):
                return "discriminators that do not begin the data"
            joined += value
        return joined if joined else "no discriminator that can be read"

    # -- values --

    def constant(self, node: Node) -> bytes | None:
        return self.bytes_of(_node(node.get("type")), _node(node.get("value")))

    def bytes_of(self, kind: Node, value: Node) -> bytes | None:
        """Return the bytes of a constant; None if they are unknown."""
        match value.get("kind"):
            case "bytesValueNode":
                return _bytes(value.get("data"), value.get("encoding"))
            case "numberValueNode" if isinstance(number := value.get("number"), int):
                return _integer(number, _number(kind))
            case "stringValueNode" if isinstance(text := value.get("string"), str):
                return text.encode()
            case "booleanValueNode":
                return bytes([bool(value.get("boolean"))])
            case "publicKeyValueNode":
                return _bytes(value.get("publicKey"), "base58")
            case "enumValueNode":
                enum = _node(self.enums.get(_node(value.get("enum")).get("name")))
                names = [_node(each).get("name") for each in _listed(enum, "variants")]
                if value.get("variant") in names:
                    return _integer(names.index(value.get("variant")), _number(_node(enum.get("size"))))
        return None


def _number(node: Node) -> Any:
    """Return the name of the node's scalar type.

    For a node without such a type, return a text that is not a type's name.
    """
    while isinstance(node.get("number"), dict):
        node = node["number"]
    if node.get("kind") != "numberTypeNode":
        return _unsupported(node)
    if node.get("endian") == "be" and node.get("format") not in ("u8", "i8"):
        return f"big-endian {node.get('format')}"
    return node.get("format")


def _integer(number: int, kind: object) -> bytes | None:
    size = shapes.SIZES.get(kind) if isinstance(kind, str) else None
    try:
        return None if size is None else number.to_bytes(size, "little", signed=number < 0)
    except OverflowError:
        return None


def _bytes(data: object, encoding: object) -> bytes | None:
    if not isinstance(data, str):
        return None
    try:
        match encoding:
            case "base16":
                return bytes.fromhex(data)
            case "base64":
                return pybase64.b64decode(data, validate=True)
            case "base58":
                return b58decode(data) if len(data) <= 256 else None
            case "utf8":
                return data.encode()
    except ValueError:
        pass
    return None


def _unsupported(node: Node) -> dict[str, Any]:
    return {"Codama": str(node.get("kind"))}
