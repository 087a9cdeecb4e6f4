"""Parts of the OpenAPI description: parameters, and answers other than 200."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Annotated, Any, Final, TypeAlias

import msgspec
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import PathParameter, QueryParameter

from headrace.gateway.problems import PROBLEM_TYPE, Refused, wrong
from headrace.model.events import Position
from headrace.protocol.frames import U64_MAX

TopicPath: TypeAlias = Annotated[str, PathParameter(description="A topic's name, such as `trades:pump`")]
EpochQuery: TypeAlias = Annotated[
    str | None,
    QueryParameter(min_length=1, max_length=64, description="With `offset`: the last message that the client has"),
]
OffsetQuery: TypeAlias = Annotated[
    str | None,
    QueryParameter(pattern="^[0-9]{1,20}$", description="With `epoch`: the last message that the client has; u64"),
]


def position(epoch: str | None, offset: str | None) -> Position | None:
    """Return the position of `epoch` and `offset`; None if both are missing.

    Raises Refused 400 if only one is given.
    """
    if epoch is None or offset is None:
        if epoch is not None or offset is not None:
            missing, given = ("offset", epoch) if offset is None else ("epoch", offset)
            raise Refused(
                HTTPStatus.BAD_REQUEST,
                "epoch and offset go together",
                errors=[wrong(missing, "is missing beside it", given)],
            )
        return None
    if int(offset) > U64_MAX:
        raise Refused(
            HTTPStatus.BAD_REQUEST, "a parameter is wrong", errors=[wrong("offset", "is beyond 64 bits", offset)]
        )
    return Position(epoch, int(offset))


class Wrong(msgspec.Struct, frozen=True, omit_defaults=True):
    """One wrong parameter, and the beginning of its value."""

    name: str
    message: str
    given: str = ""


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """RFC 9457 problem details, with `errors` if parameters are wrong."""

    type: str
    title: str
    status: int
    detail: str = ""
    errors: list[Wrong] = []


class Place(msgspec.Struct, frozen=True):
    """A position in a topic's log."""

    epoch: str
    offset: str

    @classmethod
    def of(cls, position: Position) -> "Place":
        """Return the position in the form that HTTP answers use."""
        return cls(position.epoch, str(position.offset))


class Unrecoverable(Problem, frozen=True, kw_only=True):
    """The log no longer has the messages after the given position. `newest` is a position to continue from."""

    topic: str
    given: Place
    newest: Place


_WHEN: Final = {
    HTTPStatus.BAD_REQUEST: "A parameter is missing or wrong",
    HTTPStatus.NOT_FOUND: "No topic can have this name",
    HTTPStatus.GONE: "The position can't be recovered",
    HTTPStatus.UPGRADE_REQUIRED: "Connect with a WebSocket client",
    HTTPStatus.SERVICE_UNAVAILABLE: "Not now: the history is away, the server is full or shuts down",
}


def problems(*statuses: HTTPStatus) -> dict[int, ResponseSpec]:
    """Return the `responses` of a handler that refuses with these statuses."""
    return {
        int(status): ResponseSpec(
            Unrecoverable if status is HTTPStatus.GONE else Problem,
            description=_WHEN.get(status, status.phrase),
            media_type=PROBLEM_TYPE,
            generate_examples=False,
        )
        for status in statuses
    }


def portable(schema: Any) -> Any:
    """Rewrite a JSON schema in place, into forms that tools of other languages read correctly. Return the schema.

    - Python's anchors in patterns become JavaScript's.
    - A boolean of one value becomes a `const`, because client generators know only enumerations of text and integers.
    - A property's default moves into its description. Generators make a property with a default required, but it may be
      absent, in requests and in answers.
    """
    if isinstance(schema, dict) and schema.get("enum") in ([True], [False]):
        (schema["const"],) = schema.pop("enum")
        schema["type"] = "boolean"
    for key, value in schema.items() if isinstance(schema, dict) else enumerate(schema):
        if key == "pattern" and isinstance(value, str):
            schema[key] = value.replace(r"\A", "^").replace(r"\Z", "$")
        elif key == "properties" and isinstance(value, dict):
            for described in value.values():
                _move_default(described)
        if isinstance(value, dict | list):
            portable(value)
    return schema


def _move_default(described: dict[str, Any]) -> None:
    default = described.pop("default", None)
    if default not in (None, "", [], {}):
        about = described.get("description", "")
        described["description"] = f"{about}{'; ' if about else ''}{msgspec.json.encode(default).decode()} when absent"


def with_bodies(document: dict[str, Any], bodies: Mapping[str, type[msgspec.Struct]]) -> dict[str, Any]:
    """Add the request bodies of these paths to an OpenAPI document, in place."""
    for path, shape in bodies.items():
        (_,), components = msgspec.json.schema_components([shape], ref_template="#/components/schemas/{name}")
        document.setdefault("components", {}).setdefault("schemas", {}).update(components)
        schema = {"$ref": f"#/components/schemas/{shape.__name__}"}
        if path not in document["paths"]:
            continue
        document["paths"][path]["post"]["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": schema}},
        }
    return document
