"""The AsyncAPI document is the protocol's: every frame and command that the code knows is in it, as it really is."""

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, get_args

import httpx
import jsonschema
import pytest

import headrace.protocol
from headrace.gateway.routes import asyncapi
from headrace.gateway.routes.stream_entries import CLOSES, COMMANDS, ERRORS, ORDER, OVER_HTTP, STREAM
from headrace.model import topics
from headrace.model.events import Message, MessageKind, Position, TopicEpoch
from headrace.protocol import frames
from headrace.protocol.codes import CloseCode, ErrorCode
from headrace.protocol.frames import Envelope, Limits
from headrace.protocol.session import Send, ServerSession
from tests.flow.desk import BODY, ask, desk
from tests.gateway.running_gateway import join, run_gateway
from tests.gateway.test_dashboard import play_demo

DOCUMENT = asyncapi.document()
PROTOCOL = Path(headrace.protocol.__file__).parent


@cache
def validator(schema: str) -> Any:
    whole = {"$ref": f"#/components/schemas/{schema}", "components": DOCUMENT["components"]}
    return jsonschema.Draft202012Validator(whole)


def shape_of(frame: Any, channel: str = "stream") -> str:
    """The schema of the message that a frame is, which it keeps to."""
    messages = DOCUMENT["components"]["messages"]
    found: str
    (found,) = [
        name for name in DOCUMENT["channels"][channel]["messages"]
        if messages[name]["name"] == frame["type"] and not name.endswith("Command")
    ]  # fmt: skip
    validator(found).validate(frame)
    return found


def types_of(shapes: tuple[type, ...]) -> set[str]:
    return {DOCUMENT["components"]["messages"][shape.__name__]["name"] for shape in shapes}


def test_every_frame_of_the_protocol_is_described() -> None:
    """By the words in its sources: types of frames are literals there, and lower case."""
    source = "".join(path.read_text() for path in PROTOCOL.glob("*.py") if path.name != "shapes.py")
    built = set(re.findall(r'_frame\(\s*"(\w+)"', source)) | set(re.findall(r'"type"\s*: ?"([a-z_]\w*)"', source))
    told = types_of(STREAM) | types_of(OVER_HTTP) | types_of(ORDER)
    assert built | set(get_args(MessageKind)) == told


def test_every_command_is_described() -> None:
    assert {*ServerSession._COMMANDS, "pong"} == set(COMMANDS)


def test_every_code_is_described() -> None:
    assert set(ERRORS) == set(ErrorCode)
    assert set(CLOSES) == set(CloseCode)
    told = DOCUMENT["info"]
    assert {entry["code"] for entry in told["x-error-codes"]} == set(ErrorCode)
    assert {entry["code"] for entry in told["x-close-codes"]} == set(CloseCode)
    assert set(told["x-topics"]) == {*topics.PLAIN, *topics.KEYED}


def test_every_reference_leads_somewhere() -> None:
    def references(part: Any) -> Iterator[str]:
        if isinstance(part, dict):
            yield from ([part["$ref"]] if "$ref" in part else [])
            part = list(part.values())
        if isinstance(part, list):
            for one in part:
                yield from references(one)

    found = set(references(DOCUMENT))
    assert len(found) > 50
    for reference in found:
        part = DOCUMENT
        for name in reference.removeprefix("#/").split("/"):
            part = part[name]
    for schema in DOCUMENT["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)


async def test_the_document_is_served() -> None:
    async with run_gateway() as running:
        async with httpx.AsyncClient(verify=False) as http:
            answer = await http.get(f"http://127.0.0.1:{running.port}/schema/asyncapi.json")
        assert answer.headers["content-type"] == "application/json"
        assert answer.json() == json.loads(json.dumps(DOCUMENT))
        assert answer.json()["asyncapi"] == "3.0.0"


async def test_real_frames_match_their_schemas() -> None:
    """Of a server that plays the shipped recording, and of one that tells what else there is."""
    met = {"Quote"}  # as "Order" in the next test
    async with run_gateway(history_size=100_000, ping_s=0.3) as running:
        await play_demo(running)
        framer = frames.event_frame
        for topic in running.bus.topics():
            for message in (await running.bus.history(topic, None, 2)).messages:
                met.add(shape_of(json.loads(framer(message))))
        raw = await join(running)
        raw.ask("subscribe", 1, topic="slots", recover={"epoch": "g", "offset": "999"})
        met.add(shape_of(await raw.json()))
        raw.ask("subscribe", topic="nonsense")
        raw.ask("unsubscribe", "x", topic="slots")
        raw.ask("history", 5, topic="trades:pump", limit=20)
        while not {"Ping", "Subscribed", "Unsubscribed", "Error", "History"} <= met:
            met.add(shape_of(await raw.json()))
        raw.leave()
    bodies: list[tuple[MessageKind, bytes]] = [
        ("promote", b'"data":{"slot":"4","commitment":"confirmed"}'),
        ("retract", b'"data":{"event_ids":["e"],"reason":"dead_slot"}'),
        ("gap", b'"data":{"gap_id":"g","from_slot":"1","to_slot":"9","state":"open","reason":"x"}'),
    ]
    for kind, body in bodies:
        met.add(shape_of(json.loads(frames.event_frame(Message(TopicEpoch("slots", "g"), kind, 1, body)))))
    item = frames.event_frame(Message(TopicEpoch("slots", "g"), "event", 1, b'"event_id":"e","data":{}'))
    met.add(shape_of(json.loads(frames.snapshot("slots", Position("g", 1), 7, [item], None, complete=True))))
    met.add(shape_of(json.loads(frames.acknowledged("user:42", 1, 17))))
    shape_of(json.loads(frames.letter("user:42", "e", 1, "app:1", "{}", ack=True)))
    met.add(shape_of(json.loads(frames.lag("slots", "e", 1, 2, 2))))
    welcome = frames.welcome(connection_id="c", user_id=None, server_id="s", ping_s=1, pong_s=0.5, limits=Limits())
    met.add(shape_of(json.loads(welcome)))
    met.add(shape_of(json.loads(frames.authenticated(1, "42", 60))))
    met.add(shape_of(json.loads(frames.auth_expiring(60))))
    assert met | {"Order"} == {shape.__name__ for shape in STREAM}


async def test_real_frames_of_orders_match_their_schemas(tmp_path: Path) -> None:
    async with desk(tmp_path) as client, client.connect("?user_id=ann&subscriptions=orders:ann") as socket:
        shape_of(json.loads(await socket.recv()))
        placed = await ask(socket, "order.execute", BODY)
        assert shape_of(placed) == "Order"
        assert shape_of(await ask(socket, "order.get", {"orderId": "none"}, 2)) == "Error"
        assert shape_of(await ask(socket, "order.get", {}, 3)) == "Error"
        quote = {"inputMint": "SOL", "outputMint": "USDC", "amount": "1500000"}
        assert shape_of(await ask(socket, "quote", quote, 5)) == "Quote"
        assert shape_of(await ask(socket, "quote", {}, 6)) == "Error"
        stream = await client.follow(f"/api/orders/{placed['data']['orderId']}/stream")
        assert {shape_of(frame, "order") for frame in stream} == {"OrderSnapshot", "Update"}
        page = await ask(socket, "history", {"topic": "orders:ann"}, 4)
        assert shape_of(page) == "History"
        assert page["data"]["items"]


SAMPLES: list[tuple[dict[str, Any], bool]] = [
    ({"type": "subscribe", "data": {"topic": "slots"}}, True),
    ({"type": "subscribe", "id": 7, "data": {"topic": "slots", "recover": {"epoch": "g", "offset": "1842"}}}, True),
    ({"type": "subscribe", "id": "x" * 65, "data": {"topic": "slots"}}, False),
    ({"type": "subscribe", "id": 1.5, "data": {"topic": "slots"}}, False),
    ({"type": "subscribe", "data": {}}, False),
    ({"type": "subscribe"}, False),
    ({"type": "subscribe", "data": {"topic": 3}}, False),
    ({"type": "subscribe", "data": {"topic": "s" * 136}}, False),
    ({"type": "subscribe", "data": {"topic": "slots", "recover": {"epoch": "g", "offset": 1842}}}, False),
    ({"type": "subscribe", "data": {"topic": "slots", "recover": {"epoch": "g", "offset": "-1"}}}, False),
    ({"type": "subscribe", "data": {"topic": "slots", "on_slow": "never"}}, False),
    ({"type": "history", "id": None, "data": {"topic": "slots", "limit": 3, "reverse": True}}, True),
    ({"type": "history", "data": {"topic": "slots", "limit": 0}}, False),
    ({"type": "history", "data": {"topic": "slots", "since": {"epoch": ""}}}, False),
    ({"type": "unsubscribe", "data": {"topic": ""}}, False),
    ({"type": "pong"}, True),
    ({"type": "order.get", "data": {"orderId": "x"}}, True),
    ({"type": "quote", "data": {"inputMint": "SOL", "outputMint": "USDC", "amount": "5"}}, True),
    ({"type": "order.execute", "data": {**BODY, "idempotencyKey": "k"}}, True),
]


@pytest.mark.parametrize(("command", "right"), SAMPLES, ids=lambda value: json.dumps(value)[:60])
def test_schema_and_session_accept_the_same_commands(command: dict[str, Any], right: bool) -> None:
    """What the schema takes the session takes, and the other way round."""
    name = "".join(part.capitalize() for part in command["type"].split(".")) + "Command"
    assert validator(name).is_valid(command) is right
    actions = ServerSession(Limits(), 0.0, orders=True).receive(json.dumps(command), 0.0)
    refused = [json.loads(action.payload) for action in actions if isinstance(action, Send)]
    assert bool(refused) is not right, refused


def test_an_undescribed_field_is_detected() -> None:
    """Else the tests above prove nothing."""
    frame = json.loads(frames.unsubscribed("slots", 1))
    shape_of(frame)
    with pytest.raises(jsonschema.ValidationError):
        shape_of({**frame, "more": 1})
    with pytest.raises(jsonschema.ValidationError):
        shape_of(json.loads(frames.lag("slots", "e", 1, 2, 2).replace(b'"2"', b"2")))
    assert validator("SubscribeCommand").is_valid({"type": "subscribe", "data": {"topic": "slots"}, "new": 1})
    assert Envelope.__struct_fields__ == ("type", "id", "data")
