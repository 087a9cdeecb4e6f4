"""The protocol's reference, and how to filter, are true: conversations happen, tables are those of the code."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from headrace.bus import BusSettings
from headrace.config import Setting
from headrace.gateway.auth.settings import AuthSettings
from headrace.gateway.settings import AdmissionSettings, GatewaySettings
from headrace.inbox import Inbox, InboxSettings, Letter
from headrace.inbox.sqlite import SqliteInbox
from headrace.model.events import Label, MessageKind, Publication
from headrace.protocol.codes import CloseCode, ErrorCode, may_reconnect
from headrace.protocol.frames import Head
from headrace.runtime.clock import ManualClock, SystemClock
from tests.gateway.issuer import HS256, token
from tests.gateway.running_gateway import TEXT, Raw, RunningGateway, frame, run_gateway
from tests.local_bus import LocalBus

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "reference" / "wire-protocol.md").read_text()
HOW_TO = (DOCS / "how-to" / "filter.md").read_text()
CONVERSATIONS = re.findall(r"^```text\n(.*?)^```", PAGE + HOW_TO, re.MULTILINE | re.DOTALL)

TRADE = (
    b'"event_id":"447200011:5sigABC:3.1:0","data":{"type":"Trade","program":"pump","side":"buy","sol":"1.5"},'
    b'"chain":{"slot":"447200011","signature":"5sigABC","ix":[3,1],"commitment":"processed","tx_version":0,'
    b'"source":"rpc-0","truncated":false,"via":"cpi"}'
)
HAPPENINGS: dict[str, list[tuple[MessageKind, bytes]]] = {
    "a trade happens": [("event", TRADE)],
    "five trades happen": [("event", TRADE)] * 5,
    "a trade of 1.5 SOL happens": [("event", TRADE)],
    "a trade of 0.2 SOL happens": [("event", TRADE.replace(b"1.5", b"0.2"))],
    "three trades of mint A happen, then one of mint B": [
        ("event", TRADE.replace(b'"side"', b'"mint":"%b","side"' % mint)) for mint in (b"A", b"A", b"A", b"B")
    ],
    "its slot is confirmed": [("promote", b'"data":{"slot":"447200011","commitment":"confirmed"}')],
    "a fork takes it back": [("retract", b'"data":{"event_ids":["447200011:5sigABC:3.1:0"],"reason":"fork"}')],
    "the node loses some slots": [
        (
            "gap",
            b'"data":{"gap_id":"g1","from_slot":"447200012","to_slot":"447200019","state":"open",'
            b'"reason":"disconnected"}',
        )
    ],
    "a heartbeat is due": [],
}
ACCOUNTS = {"the accounts A, B and C change, and A again": ["A1", "B1", "C1", "A2"], "the account B changes": ["B2"]}
LETTER = b'{"type":"Notification","user_id":"42","title":"Hello","message":"There","notification_type":"info"}'


def state(change: str) -> Publication:
    body = b'"event_id":"447200011:%b","data":{"pubkey":"%b"},"chain":{"slot":"447200011"}'
    label = Label(change[:1], f"447200011:{change}", 447200011, certain=False)
    return Publication.on("accounts:pump", "event", body % (change.encode(), change[:1].encode()), label)


async def happen(running: RunningGateway, what: str, inbox: Inbox) -> None:
    if what == "user 42 is sent a message to acknowledge":
        await inbox.put([Letter("42", "app:5f3", LETTER.decode(), ack=True)], None, lambda _: "")
    elif what in ACCOUNTS:
        await running.bus.publish([state(change) for change in ACCOUNTS[what]])
    else:
        await running.bus.publish([Publication.on("trades:pump", kind, body) for kind, body in HAPPENINGS[what]])


def lines_of(conversation: str) -> Iterator[tuple[str, str]]:
    """(mark, text) of each line, continuation lines joined."""
    for line in re.sub(r"\n {3}", "", conversation).splitlines():
        mark, _, text = line.partition(" ")
        assert mark in "→←#", line
        yield mark, text


def matches(shown: Any, real: Any) -> bool:
    """Whether a frame is as shown; `…` stands for any text, or for members that are not shown."""
    if isinstance(shown, dict) and isinstance(real, dict):
        keys = shown.keys() - {"…"}
        same_keys = keys <= real.keys() if "…" in shown else keys == real.keys()
        return same_keys and all(key == "ts" or matches(shown[key], real[key]) for key in keys)
    if isinstance(shown, list) and isinstance(real, list):
        return len(shown) == len(real) and all(map(matches, shown, real))
    if isinstance(shown, str) and isinstance(real, str):
        return re.fullmatch(".*".join(map(re.escape, shown.split("…"))), real) is not None
    return type(shown) is type(real) and bool(shown == real)


def with_tokens(text: str, running: RunningGateway) -> str:
    """Real ones in place of `eyJ…`, which is good for an hour, and `eyJ… of 20 seconds`."""
    now_s = running.gateway.keeper.clock.wall_ns() / 1e9
    for shown, ttl_s in (("eyJ… of 20 seconds", 20), ("eyJ…", 3600)):
        text = text.replace(shown, token(now_s=now_s, ttl_s=ttl_s))
    return text


async def play(running: RunningGateway, conversation: str, inbox: Inbox) -> None:
    raw: Raw | None = None
    for mark, text in lines_of(conversation):
        if mark == "#":
            await happen(running, text, inbox)
            continue
        if raw is None or text.startswith("GET "):
            path = text.removeprefix("GET ") if text.startswith("GET ") else "/ws"
            raw = await Raw.open(running.port, path)
            if not text.startswith("GET ") and running.gateway.sessions.auth is None:
                assert (await raw.json())["type"] == "welcome"
        if mark == "→" and not text.startswith("GET "):
            raw.send(frame(TEXT, with_tokens(text, running).encode()))
        elif mark == "←":
            shown, real = json.loads(text.replace(",…", ',"…":0')), await raw.json()
            assert matches(shown, real), (shown, real)


@pytest.mark.parametrize("conversation", CONVERSATIONS)
async def test_the_conversations_happen(conversation: str) -> None:
    beats: dict[str, Any] = {"ping_s": 0.3} if '"type":"ping"' in conversation else {}
    bus = LocalBus(BusSettings(), SystemClock(), "k3Fq")
    by_default = msgspec.structs.replace(HS256, leeway_s=AuthSettings().leeway_s)
    auth, clock = (by_default, ManualClock()) if '"type":"auth"' in conversation else (None, SystemClock())
    head = Head(447200020, 447200010, 180)
    inbox = await SqliteInbox.at(":memory:", SystemClock(), InboxSettings())
    users = inbox if "user:42" in conversation else None
    async with run_gateway(bus, head=lambda: head, auth=auth, clock=clock, inbox=users, **beats) as running:
        await play(running, conversation, inbox)
    await inbox.close()


def test_a_wrong_frame_is_detected() -> None:
    assert matches({"a": "5sig…", "…": 0}, {"a": "5sigX", "b": 1})
    assert not matches({"a": "5sig…"}, {"a": "5sigX", "b": 1})
    assert not matches({"a": ["1"]}, {"a": [1]})
    assert not matches({"a": False}, {"a": 0})
    assert len(CONVERSATIONS) >= 12


def rows(title: str) -> list[list[str]]:
    """The cells of the table under a heading."""
    section = PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    table = [line for line in section.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[1:]]


def test_every_error_code_is_documented() -> None:
    told = {int(code): name for code, name, *_ in rows("Errors")}
    assert told == {code.value: code.name.lower().replace("_", " ") for code in ErrorCode}


def test_every_close_code_is_documented() -> None:
    told = {int(code): again == "yes" for code, again, _ in rows("Close codes")}
    assert told == {code.value: may_reconnect(code) for code in CloseCode}


def test_limits_are_the_defaults() -> None:
    defaults: dict[str, Any] = {}
    for section in (GatewaySettings(), AdmissionSettings()):
        for field, hint in type(section).__annotations__.items():
            setting = next(part for part in hint.__metadata__ if isinstance(part, Setting))
            defaults |= dict.fromkeys(setting.env, getattr(section, field))
    for what, default, name, _ in rows("Limits"):
        assert float(default) == defaults[name.strip("`")], what
