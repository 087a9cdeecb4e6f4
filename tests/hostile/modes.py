"""The ways in which a node misbehaves: each a name, and what it does to a source."""

import asyncio
import itertools
import json
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from headrace.testing.ledger import made_up_key, made_up_signature
from tests.hostile.bombs import deflated
from tests.hostile.raw import Peer, frame

if TYPE_CHECKING:
    from tests.hostile.attacked import Attacked

Attack: TypeAlias = Callable[["Attacked"], Awaitable[None]]

MEGABYTE: Final = 1_000_000
OTHER: Final = made_up_key("another program")


@dataclass(frozen=True)
class Mode:
    """`attack` begins it and returns; what it has begun ends with the attack.

    `alone`: what happened can be held against what was declared also where this node is the only one; not where it asks
    to be left alone for minutes. `phantoms`: it tells of transactions that never were. `unproven`: it says of what
    happened that it is in no block.
    """

    name: str
    attack: Attack
    alone: bool = True
    phantoms: bool = False
    unproven: bool = False


# Before the handshake is done.


def raw(talk: Callable[[Peer], Awaitable[None]]) -> Attack:
    async def attack(one: "Attacked") -> None:
        one.raw.talk = talk
        one.speak_raw()

    return attack


def answer(*pieces: bytes, forever: bytes = b"") -> Attack:
    async def talk(peer: Peer) -> None:
        await peer.request()
        await peer.send_each(pieces)
        if forever:
            await peer.send_each(repeat(forever))

    return raw(talk)


async def _hang_up(peer: Peer) -> None:
    await peer.request()


async def _tls_junk(peer: Peer) -> None:
    await peer.send(bytes.fromhex("16030300020200") * 100)


async def _wrong_key(peer: Peer) -> None:
    await peer.accept(key=b"x")
    await peer.hold()


def headers(*lines: str) -> Attack:
    async def talk(peer: Peer) -> None:
        await peer.accept(*lines)
        await peer.hold()

    return raw(talk)


def refuse(status: int, **more: str) -> Attack:
    async def attack(one: "Attacked") -> None:
        faults = one.hostile.faults
        faults.refuse, faults.refuse_status = True, status
        faults.retry_after, faults.location = more.get("retry_after", ""), more.get("location", "")
        one.cut()

    return attack


HANDSHAKES: Final = [
    Mode("silent from the start", raw(Peer.hold)),
    Mode("hangs up on the request", raw(_hang_up)),
    Mode("TLS bytes without TLS", raw(_tls_junk)),
    Mode("an HTTP page in place of a WebSocket", answer(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi")),
    Mode("no HTTP at all", answer(b"220 mail.example ESMTP\r\n")),
    Mode("a body without an end", answer(b"HTTP/1.1 503 x\r\n\r\n", forever=b"x" * 65_536)),
    Mode("headers without an end", answer(b"HTTP/1.1 101 x\r\n", forever=b"a: b\r\n")),
    Mode("a header line without an end", answer(b"HTTP/1.1 101 x\r\na: ", forever=b"b" * 65_536)),
    Mode("a status line without an end", answer(forever=b"H" * 65_536)),
    Mode("the key of another handshake", raw(_wrong_key)),
    Mode("compression that was not asked for", headers("sec-websocket-extensions: permessage-deflate")),
    Mode("a subprotocol that was not asked for", headers("sec-websocket-protocol: x")),
    Mode("redirects elsewhere", refuse(302, location="ws://127.0.0.1:1/")),
    Mode("redirects to itself", refuse(307, location="/")),
    Mode("HTTP 401", refuse(401)),
    Mode("HTTP 503", refuse(503)),
    Mode("a handshake refused for a thousand years", refuse(429, retry_after="31536000000"), alone=False),
]

# Frames.


def frames(*pieces: bytes, forever: bytes = b"") -> Attack:
    async def talk(peer: Peer) -> None:
        await peer.accept()
        await peer.send_each(pieces)
        if forever:
            await peer.send_each(repeat(forever))
        await peer.hold()

    return raw(talk)


FRAMES: Final = [
    Mode("an honest handshake, then nothing", frames()),
    Mode("a reserved bit", frames(frame(1, b"{}", first=0xA0))),
    Mode("a compressed bomb", frames(frame(1, deflated(50, -15, of=b"\0"), first=0xC0))),
    Mode("an unknown opcode", frames(frame(5, b"x"))),
    Mode("masked frames", frames(frame(1, b"\0\0\0\0{}", mask=0x80, length=2))),
    Mode("a frame of 2^63 bytes", frames(frame(2, length=2**63))),
    Mode("a frame of 15 MB that never comes", frames(frame(2, b"x" * 1000, length=15 * MEGABYTE))),
    Mode("a frame beyond the bound", frames(frame(2, length=17 * 1024 * 1024), forever=b"x" * 65_536)),
    Mode(
        "a message in pieces without an end", frames(frame(1, b"x", first=0), forever=frame(0, b"x" * 65_535, first=0))
    ),
    Mode("a message in pieces of a byte", frames(frame(1, b"[", first=0), forever=frame(0, b" ", first=0) * 1000)),
    Mode("a continuation of nothing", frames(frame(0, b"x"))),
    Mode("a ping in pieces", frames(frame(9, b"x", first=0))),
    Mode("a ping of 126 bytes", frames(frame(9, b"x" * 126))),
    Mode("pings without an end", frames(forever=frame(9, b"x" * 125) * 500)),
    Mode("pongs without an end", frames(forever=frame(10, b"x" * 125) * 500)),
    Mode("invalid UTF-8", frames(frame(1, b"\xff\xfe"), forever=frame(1, b"\xff") * 1000)),
    Mode("closes with 1000", frames(frame(8, b"\x03\xe8"))),
    Mode("closes with 1013", frames(frame(8, b"\x03\xf5try again"))),
    Mode("closes with a code that can't be sent", frames(frame(8, b"\x03\xed"))),
    Mode("closes with half a code", frames(frame(8, b"\x03"))),
    Mode("empty messages without an end", frames(forever=frame(1) * 1000)),
    Mode("messages of blanks without an end", frames(forever=frame(1, b" " * 60_000))),
]

# Messages of a node that took the subscriptions.


def faults(**changes: object) -> Attack:
    """The faults of a scripted node, on new connections too."""

    async def attack(one: "Attacked") -> None:
        for name, value in changes.items():
            setattr(one.hostile.faults, name, value)
        one.cut()

    return attack


def live(**changes: object) -> Attack:
    """The same, on the connection that there is."""

    async def attack(one: "Attacked") -> None:
        for name, value in changes.items():
            setattr(one.hostile.faults, name, value)

    return attack


def says(*texts: Callable[["Attacked"], str | bytes], times: int = 3) -> Attack:
    """Messages in between the honest ones."""

    async def attack(one: "Attacked") -> None:
        async def talk() -> None:
            for _ in range(times):
                for text in texts:
                    one.hostile.send_raw(text(one))
                await asyncio.sleep(0.001)

        one.start(talk)

    return attack


def text(message: str | bytes) -> Callable[["Attacked"], str | bytes]:
    return lambda one: message


def notice(kind: str, result: Callable[["Attacked"], object], *, number: object = None) -> Callable[["Attacked"], str]:
    """A notification for a subscription that there is, unless `number` names another."""

    def made(one: "Attacked") -> str:
        shown = one.subscription(kind) if number is None else number
        params = {"result": result(one), "subscription": shown}
        return json.dumps({"jsonrpc": "2.0", "method": f"{kind}Notification", "params": params})

    return made


def logs(slot: Callable[["Attacked"], object] | None = None, **changes: object) -> Callable[["Attacked"], object]:
    def made(one: "Attacked") -> object:
        value = {"signature": made_up_signature(next(one.numbers)), "err": None, "logs": []} | changes
        return {"context": {"slot": slot(one) if slot else one.slot}, "value": value}

    return made


def slots(change: Callable[[int], dict[str, object]]) -> Callable[["Attacked"], object]:
    return lambda one: {"slot": one.slot, "parent": one.slot - 1, "root": one.slot - 32} | change(one.slot)


def told(kind: str, result: Callable[["Attacked"], object], *, times: int = 3) -> Attack:
    return says(notice(kind, result), times=times)


async def _forks(one: "Attacked") -> None:
    """Each slot stands on another one."""
    jumps = itertools.cycle([1, 3, 2, 7, 1, 31])
    await says(notice("slot", slots(lambda slot: {"parent": slot - next(jumps)})), times=500)(one)


def errors(code: int) -> Attack:
    names = ("slotSubscribe", "logsSubscribe")
    return faults(errors=dict.fromkeys(names, (code, "no " * 50)))


DEEP: Final = '{"a":' * 100_000
MESSAGES: Final = [
    Mode("never acknowledges", faults(never_ack=True)),
    Mode("acknowledges slots alone", faults(unanswered={"logsSubscribe"})),
    Mode("refuses everything", errors(-32601)),
    Mode("refuses as busy", errors(-32005)),
    Mode("gives all subscriptions one id", faults(same_id=True)),
    Mode("falls silent", live(silent=True)),
    Mode("goes on with slots alone", live(dropped={"logs"})),
    Mode("goes on without slots", live(dropped={"slot"})),
    Mode("says everything five times", live(repeat=5)),
    Mode("inverts the order", live(reorder=True)),
    Mode("notifies under ids of nobody", live(wrong_ids=True)),
    Mode("no JSON", says(text("<html>busy</html>"))),
    Mode("binary junk", says(text(bytes(range(256)) * 100))),
    Mode("JSON too deep", says(text(DEEP))),
    Mode("an array of messages", says(lambda one: f"[{notice('slot', slots(lambda slot: {}))(one)}]")),
    Mode("a number", says(text("7"))),
    Mode("NaN", says(text('{"id":NaN,"result":NaN}'))),
    Mode("a number of ten thousand digits", says(text('{"id":%s,"result":1}' % ("1" * 10_000)))),
    Mode("members twice", says(lambda one: '{"method":"x",' + notice("logs", logs())(one)[1:]), phantoms=True),
    Mode("acknowledges what nobody asked", says(text('{"jsonrpc":"2.0","id":99999,"result":5}'))),
    Mode("an error for everybody", says(text('{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"x"}}'))),
    Mode("notifications of an unknown method", says(text('{"method":"voteNotification","params":{"result":1}}'))),
    Mode("a subscription id as text", says(notice("logs", logs(), number="24040")), phantoms=True),
    Mode("notifications of an unknown id", says(notice("logs", logs(), number=5))),
    Mode("another kind under the id", says(lambda one: notice("slot", logs())(one))),
    Mode("a null result", told("logs", lambda one: None)),
    Mode("no context", told("logs", lambda one: {"value": {}})),
    Mode("a slot of -1", told("logs", logs(lambda one: -1))),
    Mode("a slot of 2^64", told("logs", logs(lambda one: 2**64))),
    Mode("a slot as text", told("logs", logs(lambda one: str(one.slot))), phantoms=True),
    Mode("logs that are null", told("logs", logs(logs=None))),
    Mode("logs that are one text", told("logs", logs(logs="Program log: x"))),
    Mode("half a million empty log lines", told("logs", logs(logs=[""] * 350_000))),
    Mode("an error of ten thousand lists", told("logs", logs(err={"InstructionError": [[]] * 10_000})), phantoms=True),
    Mode("signatures of zero bytes", told("logs", logs(signature="1" * 64)), phantoms=True),
    Mode("transactions that never were", told("logs", logs(), times=200), phantoms=True),
    Mode("transactions of a past slot", told("logs", logs(lambda one: 1)), phantoms=True),
    Mode("transactions of a slot to come", told("logs", logs(lambda one: one.slot + 50)), phantoms=True),
    Mode("a slot 5,000 ahead once", told("slot", slots(lambda slot: {"slot": slot + 5_000}), times=1)),
    Mode("a slot 900,000 ahead once", told("slot", slots(lambda slot: {"slot": slot + 900_000}), times=1)),
    Mode("a slot 2^62 once", told("slot", slots(lambda slot: {"slot": 2**62}), times=1)),
    Mode("logs 900,000 slots ahead", told("logs", logs(lambda one: one.slot + 900_000)), phantoms=True),
    Mode("a root above the slot", told("slot", slots(lambda slot: {"root": slot + 10}))),
    Mode("a parent above the slot", told("slot", slots(lambda slot: {"parent": slot + 10}))),
    Mode("slots that go back", told("slot", slots(lambda slot: {"slot": slot - 40, "parent": slot - 41, "root": 0}))),
    Mode("forks without an end", _forks),
]

# HTTP.


def http(**changes: object) -> Attack:
    async def attack(one: "Attacked") -> None:
        for name, value in changes.items():
            setattr(one.hostile.http_faults, name, value)
        one.cut()

    return attack


def bodies(make: Callable[[dict[str, Any]], Iterable[bytes]], pause_s: float = 0.0) -> Attack:
    return http(raw=make, pause_s=pause_s)


def body(content: bytes, *more: str) -> list[bytes]:
    head = ["HTTP/1.1 200 x", f"content-length: {len(content)}", *more]
    return ["".join(f"{line}\r\n" for line in head).encode() + b"\r\n", content]


GZIP: Final = deflated(100, of=b"\0")
CHUNKED: Final = b"HTTP/1.1 200 x\r\ntransfer-encoding: chunked\r\n\r\n"
LENGTH: Final = b"HTTP/1.1 200 x\r\ncontent-length: 200000000\r\n\r\n"


def plain(request: dict[str, Any]) -> Iterator[bytes]:
    yield LENGTH
    yield from repeat(b" " * MEGABYTE, 200)


async def _another_transaction(one: "Attacked") -> None:
    other = one.hostile.ledger.land([OTHER])
    await http(results={"getTransaction": other.result})(one)


async def _endless_listing(one: "Attacked") -> None:
    def raw(request: dict[str, Any]) -> list[bytes]:
        result: object = one.slot + 1000 if request["method"] == "getSlot" else 0
        if request["method"] == "getSignaturesForAddress":
            result = [{"signature": made_up_signature(next(one.numbers)), "slot": one.slot, "err": None}]
        return body(json.dumps({"id": request["id"], "result": result}).encode())

    await http(raw=raw)(one)


def result(content: bytes) -> Attack:
    """Every call is answered under its id, with `content` in place of the rest."""
    return bodies(lambda request: body(b'{"id":%d,%b}' % (request["id"], content)))


def stream(first: bytes, then: bytes, pause_s: float = 0.0) -> Attack:
    """An answer that goes on and on."""
    return bodies(lambda _: itertools.chain([first], repeat(then)), pause_s)


def lists(signatures: Sequence[str] | None) -> Attack:
    """No node tells statuses, and every block of this one lists these signatures; None: there is no block."""
    refusal = {"getSignatureStatuses": (-32601, "no")}
    block = None if signatures is None else {"parentSlot": 1, "signatures": signatures}

    async def attack(one: "Attacked") -> None:
        one.node.http_faults.errors = refusal
        await http(errors=refusal, results={"getBlock": block})(one)

    return attack


STATUS: Final = b"HTTP/1.1 200 x\r\n"
ELSEWHERE: Final = b"HTTP/1.1 302 x\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n"
LINES: Final = [{"signature": made_up_signature(n), "slot": 1000 + n, "err": None} for n in range(3)]
HTTP: Final = [
    Mode("HTTP hangs", http(hang=True)),
    Mode("HTTP hangs up", http(hang_up=True)),
    Mode("HTTP 500", http(status=500)),
    Mode("HTTP 429 for a thousand years", http(status=429, retry_after="31536000000"), alone=False),
    Mode("HTTP 403", http(status=403)),
    Mode("an error page with status 200", http(garbage=b"<html>busy</html>")),
    Mode("an answer to another question", http(wrong_id=True)),
    Mode("an error to every call", result(b'"error":{"code":-32603,"message":"x"}')),
    Mode("null to every call", result(b'"result":null')),
    Mode("another transaction", _another_transaction),
    Mode("transactions that are null", http(nulls=10**6)),
    Mode("a listing oldest first", http(results={"getSignaturesForAddress": LINES})),
    Mode("a listing without an end", _endless_listing),
    Mode("blocks that were not asked for", http(results={"getBlocks": [1, 2, 3]})),
    Mode("no statuses, and blocks without a signature", lists([]), unproven=True),
    Mode("no statuses, and another's blocks", lists([made_up_signature(5)]), unproven=True),
    Mode("no statuses, and blocks that are null", lists(None), unproven=True),
    Mode("no statuses, and blocks of 100,000 signatures", lists([made_up_signature(5)] * 100_000), unproven=True),
    Mode("a ledger that begins at 2^60", http(results={"getFirstAvailableBlock": 2**60})),
    Mode("getSlot 5,000 ahead", http(results={"getSlot": 6_000})),
    Mode("a gzip bomb", bodies(lambda _: body(GZIP, "content-encoding: gzip"))),
    Mode("gzip in gzip", bodies(lambda _: body(GZIP, "content-encoding: gzip, gzip"))),
    Mode("200 MB of blanks", bodies(plain)),
    Mode("a body in chunks without an end", stream(CHUNKED, b"8\r\n        \r\n" * 500)),
    Mode("a body that drips", stream(LENGTH, b" ", 0.005)),
    Mode("an HTTP redirect", bodies(lambda _: [ELSEWHERE])),
    Mode("HTTP headers without an end", stream(STATUS, b"a: b\r\n" * 500)),
    Mode("HTTP JSON too deep", result(b'"result":' + b"[" * 30_000)),
    Mode("HTTP invalid UTF-8", result(b'"result":"\xff"')),
    Mode("HTTP 100,000 lists", result(b'"result":[' + b"[]," * 100_000 + b"1]")),
]

MODES: Final = (*HANDSHAKES, *FRAMES, *MESSAGES, *HTTP)
