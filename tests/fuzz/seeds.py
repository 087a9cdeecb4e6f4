"""Where a fuzzer begins: valid input of each door, from the material in tests/data, and what was once found."""

import base64
import gzip
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Final

import msgspec

from headrace.model.updates import AccountUpdate, LogsUpdate
from headrace.programs import SHIPPED
from headrace.sources.recording_file import RecordingHeader, encode_block, encode_header, encode_update
from headrace.sources.rpc_pubsub.frames import read
from tests.fuzz.gzips import WAYS
from tests.fuzz.targets import ACTIVE, STAMP
from tests.mainnet import FOLDER, PUMP, entries, update

CORPUS: Final = Path(__file__).parents[1] / "data" / "fuzz"
"""Kept inputs, a folder for each target: what was a defect once, or leads where no valid input does."""

SOME: Final = 8

REQUESTS: Final = [
    b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n",
    b'POST /orders HTTP/1.1\r\nhost: a\r\ncontent-length: 7\r\n\r\n{"a":1}GET / HTTP/1.1\r\nhost: a\r\n\r\n',
    b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nauthorization: b\r\n\r\n",
    b"POST / HTTP/1.1\r\nhost: a\r\nupgrade: h2c\r\nconnection: upgrade\r\ncontent-length: 2\r\n\r\nhi",
    b"GET /ws HTTP/1.1\r\nhost: a\r\nupgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-key: "
    b"dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n\r\n\x81\x82\0\0\0\0{}",
    b"POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 1\r\n\r\nx",
    b"GET / HTTP/1.0\r\n\r\n",
]
FRAMES: Final = [
    b"\x00\x81\x82\0\0\0\0{}\x89\x80\0\0\0\0",
    b"\x00\x01\x81\1\2\3\4{\x80\x81\0\0\0\0}\x88\x82\0\0\0\0\x03\xe8",
    b"\xff\xc1\x87\0\0\0\0\xf2H\xcd\xc9\xc9\x07\x00",
    b"\x00\x82\xfe\x00\x80\0\0\0\0" + bytes(128),
]
ORDERS: Final = [
    {"tokenIn": "SOL", "tokenOut": "USDC", "amount": "1000000000", "slippageBps": 50, "type": "market"},
    {"tokenIn": "SOL", "tokenOut": "USDC", "uiAmount": "1.5", "type": "limit", "limitPrice": "160", "expiresAt": 2e12},
    {"tokenIn": "SOL", "tokenOut": "USDC", "amount": 5, "type": "stop", "stopRate": "1/3", "execution": {"mode": "x"}},
]
FILTERS: Final = [
    {"key": "sol", "cmp": "ex"},
    {"op": "and", "nodes": [{"key": "side", "cmp": "eq", "val": "buy"}, {"key": "sol", "cmp": "gt", "val": "1.5"}]},
    {"op": "not", "nodes": [{"key": "mint", "cmp": "in", "vals": ["a", "b"]}]},
    {"key": "a.b", "cmp": "ct", "val": "x"},
]
COMMANDS: Final = [
    {"type": "subscribe", "id": 1, "data": {"topic": "tx:pump", "filter": FILTERS[1]}},
    {"type": "subscribe", "data": {"topic": "events:pump", "recover": {"epoch": "a", "offset": "7"}}},
    {"type": "ping", "id": "x"},
    {"type": "order.execute", "id": 2, "data": ORDERS[0]},
    {"type": "unsubscribe", "id": 3, "data": {"topic": "trades:pump"}},
    {"type": "history", "data": {"topic": "tx:pump", "since": {"epoch": "a", "offset": "1"}, "limit": 9}},
    {
        "type": "subscribe",
        "data": {"topic": "trades:pump_amm", "conflate": {"key": "mint", "every_ms": 100}, "on_slow": "conflate"},
    },
    {"type": "subscribe", "data": {"topic": "market-data", "snapshot": True}},
    {"type": "ack", "data": {"topic": "user:a", "offset": "5"}},
    {"type": "auth", "data": {"token": "x"}},
    {"type": "pong"},
]
IDL: Final = {
    "address": PUMP,
    "metadata": {"name": "x", "version": "0.1.0", "spec": "0.1.0"},
    "instructions": [
        {"name": "i", "discriminator": [0] * 8, "accounts": [{"name": "a"}], "args": [{"name": "n", "type": "u64"}]}
    ],
    "events": [{"name": "E", "discriminator": [1] * 8}],
    "accounts": [{"name": "A", "discriminator": [2] * 8}],
    "types": [
        {
            "name": "E",
            "type": {"kind": "struct", "fields": [{"name": "v", "type": {"vec": {"defined": {"name": "T"}}}}]},
        },
        {"name": "A", "type": {"kind": "struct", "fields": [{"name": "o", "type": {"option": "string"}}]}},
        {"name": "T", "type": {"kind": "enum", "variants": [{"name": "X"}, {"name": "Y", "fields": ["u8", "pubkey"]}]}},
    ],
}  # fmt: skip


def _files(folder: str) -> list[bytes]:
    """The folder's files, small ones first: a fuzzer cuts off what is too long."""
    return sorted((path.read_bytes() for path in sorted((FOLDER / folder).glob("*.json"))), key=len)


def _pubsub() -> list[bytes]:
    """Real notifications, under the ids of the subscriptions that the targets have."""
    found = []
    for number, kind in ((1, "logs"), (2, "program")):
        for line in (FOLDER / "pubsub" / f"{kind}Notification.projected.jsonl").read_text().splitlines()[:SOME]:
            told = json.loads(line)
            told["params"]["subscription"] = number
            found.append(json.dumps(told).encode())
    slot = {"method": "slotNotification", "params": {"result": {"slot": 9, "parent": 8, "root": 1}, "subscription": 0}}
    return [*found, json.dumps(slot).encode(), b'{"jsonrpc":"2.0","result":24040,"id":3}']


def _answers() -> list[bytes]:
    results = [entry.document for entry in entries() if entry.kind == "transactions"]
    found = [json.dumps({"id": 1, "result": result.get("result", result)}).encode() for result in results]
    return sorted(found, key=len)[:SOME]


def _updates() -> list[bytes]:
    heard = [read(line, ACTIVE, STAMP, 1) for line in _pubsub()]
    found = [encode_update(each) for each in heard if isinstance(each, LogsUpdate | AccountUpdate)]
    return found[::4] + [encode_update(update(entry.file)) for entry in entries()[:3]]


def _recordings() -> list[bytes]:
    head = encode_header(RecordingHeader(id="x", started_ns=1))
    return [head + encode_block(_updates()) + encode_block(()), head + encode_block(_updates()[:1])]


def _accounts() -> list[bytes]:
    keyed = [
        json.loads(line)["params"]["result"]["value"]["account"]["data"][0]
        for line in _pubsub()
        if b'"account"' in line
    ]
    return [base64.b64decode(text) for text in keyed]


def _events() -> list[bytes]:
    lines = [
        line
        for text in _pubsub()
        if b"logsNotification" in text
        for line in json.loads(text)["params"]["result"]["value"]["logs"]
    ]
    return [base64.b64decode(line.split(": ")[1]) for line in lines if line.startswith("Program data: ")][:SOME]


def _wires() -> list[bytes]:
    documents = [entry.document for entry in entries() if entry.kind == "transactions"]
    told = [document.get("result", document)["transaction"] for document in documents]
    return [base64.b64decode(each[0]) for each in told if isinstance(each, list)][:SOME]


def _layouts() -> list[bytes]:
    shipped = sorted(SHIPPED.glob("*/idl.json"), key=lambda path: path.stat().st_size)[:2]
    return [json.dumps(IDL).encode() + b"\n" + bytes(64), *(path.read_bytes() + b"\n" + bytes(64) for path in shipped)]


def _jsons(values: Iterable[object]) -> list[bytes]:
    return [msgspec.json.encode(value) for value in values]


SEEDS: Final[Mapping[str, Callable[[], list[bytes]]]] = {
    "http": lambda: REQUESTS,
    "websocket": lambda: FRAMES,
    "notification": _pubsub,
    "captured": _pubsub,
    "answer": _answers,
    "packed": lambda: [
        bytes([bound, way, number >> 8, number & 255]) + (gzip.compress(b"x" * 1000) if way == 0 else b"x-y-" * 60)
        for way in range(len(WAYS))
        for bound, number in ((255, 6), (255, 470), (1, 31))
    ],
    "layouts": _layouts,
    "account": _accounts,
    "event": _events,
    "transaction": _wires,
    "document": lambda: _files("transactions")[:SOME] + _wires()[:1],
    "recording": _recordings,
    "updates": _updates,
    "order": lambda: _jsons(ORDERS),
    "filters": lambda: _jsons(FILTERS),
    "command": lambda: [*_jsons(COMMANDS), b"\n".join(_jsons(COMMANDS))],
}


@cache
def seeds(target: str) -> tuple[bytes, ...]:
    """Where the target begins: valid inputs, then those that were kept."""
    return (*SEEDS[target](), *kept(target))


def kept(target: str) -> Iterator[bytes]:
    """The inputs in the repository."""
    for path in sorted((CORPUS / target).glob("*")):
        yield path.read_bytes()
