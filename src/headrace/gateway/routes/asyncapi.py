"""The AsyncAPI 3 description of WebSockets and event streams, generated from the shapes that the code uses."""

from collections.abc import Iterable
from functools import cache
from typing import Any, Final, TypeAlias

import msgspec
from litestar import MediaType, Response, get

from headrace import __version__
from headrace.gateway.routes import guards
from headrace.gateway.routes.schema_parts import portable
from headrace.gateway.routes.stream_entries import CLOSES, COMMANDS, ERRORS, ORDER, OVER_HTTP, STREAM
from headrace.gateway.transports.handshake import SUBPROTOCOL
from headrace.model import topics
from headrace.model.identity import SUBJECT_LENGTH_MAX
from headrace.protocol import frames
from headrace.protocol.codes import may_reconnect
from headrace.protocol.shapes import Command

Document: TypeAlias = dict[str, Any]

_SCHEMA: Final = "#/components/schemas/{name}"
_ID: Final = next(field.type for field in msgspec.structs.fields(frames.Envelope) if field.name == "id")


@get("/schema/asyncapi.json", opt=guards.OPEN, include_in_schema=False, sync_to_thread=False)
def asyncapi() -> Response[bytes]:
    """Get the AsyncAPI description of the WebSocket protocol."""
    return Response(msgspec.json.encode(document()), media_type=MediaType.JSON)


@cache
def document() -> Document:
    """Return the whole document."""
    commands = {name: _without_raw(command.data) for name, command in COMMANDS.items() if command.data}
    sent = dict.fromkeys((*STREAM, *OVER_HTTP, *ORDER))
    _, schemas = msgspec.json.schema_components([*sent, *commands.values()], ref_template=_SCHEMA)
    _without_discriminators(portable(schemas))
    for name, command in COMMANDS.items():
        schemas[_name(name)] = _command_schema(name, command, commands.get(name))
    messages = {shape.__name__: _message(_tag(shape), shape.__name__, _first(shape)) for shape in sent}
    messages |= {_name(name): _message(name, _name(name), command.summary) for name, command in COMMANDS.items()}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Headrace",
            "version": __version__,
            "description": (
                f"The wire protocol {SUBPROTOCOL}: one JSON object a text frame (with batch=1 several, one a line). "
                "Ignore fields that you don't know."
            ),
            "x-error-codes": [{"code": code, "name": code.name, "when": when} for code, when in ERRORS.items()],
            "x-close-codes": [
                {"code": code, "name": code.name, "reconnect": may_reconnect(code), "when": when}
                for code, when in CLOSES.items()
            ],
            "x-topics": {**dict.fromkeys(sorted(topics.PLAIN), ""), **topics.KEYED},
        },
        "defaultContentType": "application/json",
        "channels": _channels(),
        "operations": _operations(),
        "components": {"messages": messages, "schemas": schemas},
    }


def _channels() -> Document:
    query = {
        "type": "object",
        "properties": {
            "subscriptions": {
                "type": "string",
                "description": "topics to begin with, encoded each, separated by commas",
            },
            "user_id": {"type": "string", "minLength": 1, "maxLength": SUBJECT_LENGTH_MAX},
            "ticket": {"type": "string", "description": "from POST /api/ws/tickets, where authentication is on"},
            "batch": {"enum": ["1"], "description": "a frame may hold several objects, one a line"},
        },
    }
    from_seq = {"type": "object", "properties": {"fromSeq": {"type": "string", "pattern": "^[0-9]{1,9}$"}}}
    return {
        "stream": {
            "address": "/ws",
            "title": "Every topic, over one WebSocket",
            "messages": _refs([*(shape.__name__ for shape in STREAM), *map(_name, COMMANDS)]),
            "bindings": {"ws": {"method": "GET", "query": query}},
        },
        "events": {
            "address": "/api/topics/{topic}/sse",
            "title": "One topic as server-sent events, for clients without WebSocket",
            "parameters": {"topic": {"description": "one of x-topics"}},
            "messages": _refs(shape.__name__ for shape in OVER_HTTP),
            "bindings": {"http": {}},
        },
        "order": {
            "address": "/api/orders/{order_id}/stream",
            "title": "One order's updates, where orders are on",
            "parameters": {"order_id": {"description": "as the order's answer has it"}},
            "messages": _refs(shape.__name__ for shape in ORDER),
            "bindings": {"ws": {"method": "GET", "query": from_seq}},
        },
    }


def _operations() -> Document:
    """Describe which frames the server receives (commands) and which it sends (all others)."""
    operations: Document = {}
    for channel, sent in (("stream", STREAM), ("events", OVER_HTTP), ("order", ORDER)):
        operations[f"send_{channel}"] = {
            "action": "send",
            "channel": {"$ref": f"#/channels/{channel}"},
            "messages": [_in_channel(channel, shape.__name__) for shape in sent],
        }
    for name, command in COMMANDS.items():
        operation = operations[_name(name)] = {
            "action": "receive",
            "channel": {"$ref": "#/channels/stream"},
            "summary": command.summary,
            "messages": [_in_channel("stream", _name(name))],
        }
        if command.answers:
            operation["reply"] = {
                "channel": operation["channel"],
                "messages": [_in_channel("stream", shape.__name__) for shape in command.answers],
            }
    return operations


def _without_discriminators(schema: Any) -> None:
    """Remove discriminators in place. AsyncAPI has another form for them, and every tag is already in its schema."""
    for value in schema.values() if isinstance(schema, dict) else schema:
        if isinstance(value, dict):
            value.pop("discriminator", None)
        if isinstance(value, dict | list):
            _without_discriminators(value)


def _command_schema(name: str, command: Command, data: type | None) -> Document:
    required, properties = ["type"], {"type": {"const": name}, "id": msgspec.json.schema(_ID)}
    if data is not None:
        properties["data"] = {"$ref": _SCHEMA.format(name=data.__name__)}
        required.append("data")
    return {"type": "object", "title": command.summary, "properties": properties, "required": required}


def _without_raw(shape: type) -> type:
    """Return the shape with members of raw JSON declared as Any, because raw JSON has no schema."""
    fields = msgspec.structs.fields(shape)
    if all(field.type is not msgspec.Raw for field in fields):
        return shape
    described = [
        (field.name, Any, None)
        if field.type is msgspec.Raw
        else (field.name, field.type)
        if field.required
        else (field.name, field.type, field.default)
        for field in fields
    ]
    return msgspec.defstruct(shape.__name__, described, namespace={"__doc__": shape.__doc__})


def _message(kind: str, schema: str, summary: str) -> Document:
    return {"name": kind, "summary": summary, "payload": {"$ref": _SCHEMA.format(name=schema)}}


def _refs(names: Iterable[str]) -> Document:
    return {name: {"$ref": f"#/components/messages/{name}"} for name in names}


def _in_channel(channel: str, name: str) -> Document:
    return {"$ref": f"#/channels/{channel}/messages/{name}"}


def _name(command: str) -> str:
    """Return the message name of a command: `order.get` → `OrderGetCommand`."""
    return "".join(part.capitalize() for part in command.split(".")) + "Command"


def _tag(shape: type) -> str:
    """Return the `type` of a frame."""
    config = shape.__struct_config__  # type: ignore[attr-defined]
    return str(config.tag or "update")


def _first(shape: type) -> str:
    """Return the first line of the shape's docstring."""
    return (shape.__doc__ or "").partition("\n")[0]


HANDLERS: Final = (asyncapi,)
