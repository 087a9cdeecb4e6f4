"""Every notification that can't be read as it should is read otherwise, or its loss is named: subscription and slot."""

import copy
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.model.errors import BadInputError
from headrace.sources.connection import SignatureNotice, SlotNotice, Unreadable
from headrace.sources.rpc_pubsub.frames import Ack, Heard, Refusal, Stamp, Unknown, read
from headrace.sources.rpc_pubsub.registry import ServerId
from headrace.sources.rpc_pubsub.salvage import salvage
from headrace.sources.subscriptions import SLOTS, ChainSubscription
from headrace.testing.ledger import made_up_key, made_up_signature

STAMP = Stamp("rpc-0", "processed")
KEY, OWNER = made_up_key("a"), made_up_key("owner")
SIGNATURE = made_up_signature(5)
SLOT = 447_000_000
SUBSCRIPTIONS: dict[str, tuple[int, ChainSubscription]] = {
    "slot": (24_040, SLOTS),
    "logs": (24_041, ChainSubscription("logs", OWNER)),
    "program": (24_042, ChainSubscription("program", OWNER)),
    "account": (24_043, ChainSubscription("account", KEY)),
    "signature": (24_044, ChainSubscription("signature", SIGNATURE)),
}
ACTIVE: dict[ServerId, ChainSubscription] = dict(SUBSCRIPTIONS.values())
ACCOUNT = {
    "lamports": 5, "data": ["AAAA", "base64"], "owner": OWNER, "executable": False, "rentEpoch": 1, "space": 3
}  # fmt: skip
VALUES: dict[str, object] = {
    "logs": {"signature": SIGNATURE, "err": None, "logs": ["Program log: a"]},
    "program": {"pubkey": KEY, "account": ACCOUNT},
    "account": ACCOUNT,
    "signature": {"err": None},
}


def notification(kind: str) -> dict[str, Any]:
    result: object = {"context": {"slot": SLOT, "apiVersion": "4.0.0"}, "value": VALUES.get(kind)}
    if kind == "slot":
        result = {"slot": SLOT, "parent": SLOT - 1, "root": SLOT - 32}
    params = {"result": result, "subscription": SUBSCRIPTIONS[kind][0]}
    return copy.deepcopy({"jsonrpc": "2.0", "method": f"{kind}Notification", "params": params})


def heard(message: bytes) -> list[Heard | Unreadable]:
    try:
        return [read(message, ACTIVE, STAMP, 7)]
    except BadInputError as error:
        return salvage(message, ACTIVE, STAMP, 7, error.reason)


def paths(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    if path:
        yield path
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, member in members:
        yield from paths(member, (*path, name))


REMOVE = object()
WRONG: tuple[Any, ...] = (
    REMOVE, None, True, False, -1, 1.5, 2**70, "", "error: data too large for bs58 encoding", "text", [], {},
    [None], {"parsed": {"info": {}}, "program": "spl-token", "space": 165}, [[]], ["error", "base64"], ["AAAA", "x"],
    ["AAAA", "base64", "more"], "1" * 64,
)  # fmt: skip
UNREAD: set[tuple[str | int, ...]] = {
    ("jsonrpc",), ("params", "result", "context", "apiVersion"), ("params", "result", "value", "rentEpoch"),
    ("params", "result", "value", "account", "rentEpoch"), ("params", "result", "value", "account", "executable"),
    ("params", "result", "value", "executable"),
}  # fmt: skip
"""What no message to clients depends on."""


def is_another_truth(kind: str, path: tuple[str | int, ...], wrong: Any) -> bool:
    """What a node may well say: nothing in the notification contradicts it."""
    name = path[-1]
    if name == "err":
        return wrong is None or isinstance(wrong, str | dict)
    if kind == "logs" and name == "logs":
        return isinstance(wrong, list) and all(isinstance(line, str) for line in wrong)
    if name == 0 and path[-2] == "data":
        return bool(wrong == "text")  # three bytes in base64
    if kind == "logs" and name == 0:
        return isinstance(wrong, str) or wrong is REMOVE
    return False


def mutations(kind: str) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    for path in paths(notification(kind)):
        for wrong in WRONG:
            if not is_another_truth(kind, path, wrong):
                yield path, wrong


def mutated(frame: dict[str, Any], path: tuple[str | int, ...], wrong: Any) -> bytes:
    parent: Any = frame
    for name in path[:-1]:
        parent = parent[name]
    if wrong is REMOVE:
        del parent[path[-1]]
    else:
        parent[path[-1]] = wrong
    return msgspec.json.encode(frame)


def covers(found: list[Heard | Unreadable], kind: str) -> bool:
    """Whether the notification's subscription and slot are within what is named as lost."""
    for each in found:
        if isinstance(each, Unreadable) and SUBSCRIPTIONS[kind][1] in each.subscriptions and each.slot in (None, SLOT):
            return True
        if isinstance(each, Unknown) and SUBSCRIPTIONS[kind][1].kind in each.kinds and each.slot in (None, SLOT):
            return True
    return False


def is_read(found: list[Heard | Unreadable], kind: str, whole: list[Heard | Unreadable]) -> bool:
    """Whether clients get the same. The id alone says that a signature landed, and then its transaction is fetched; a
    root that is not told is told with the next slot."""
    if kind == "signature":
        return any(isinstance(each, SignatureNotice) for each in found)
    roots = [each._replace(root=SLOT - 32) if isinstance(each, SlotNotice) else each for each in found]
    return roots == whole


@pytest.mark.parametrize("kind", SUBSCRIPTIONS)
def test_any_wrong_member_is_read_all_the_same_or_named_as_a_loss(kind: str) -> None:
    whole = heard(msgspec.json.encode(notification(kind)))
    silent, tried = [], 0
    for path, wrong in mutations(kind):
        found = heard(mutated(notification(kind), path, wrong))
        tried += 1
        if not (path in UNREAD or is_read(found, kind, whole) or covers(found, kind)):
            silent.append((path, wrong, found))
    assert silent == []
    assert tried > 150


@pytest.mark.parametrize("kind", SUBSCRIPTIONS)
def test_other_ways_to_say_the_same_are_read(kind: str) -> None:
    plain = msgspec.json.encode(notification(kind))
    whole = heard(plain)
    frame = notification(kind)
    frame["params"]["subscription"] = str(frame["params"]["subscription"])
    ways = {
        "id as text": msgspec.json.encode(frame),
        "slot with a fraction": plain.replace(str(SLOT).encode(), f"{SLOT}.0".encode()),
        "array": b"[" + plain + b"]",
        "array in array": b"[[" + plain + b"]]",
        "no method": msgspec.json.encode({"params": notification(kind)["params"]}),
        "other method": plain.replace(b"Notification", b"ChainSubscription"),
        "numbers as text": plain.replace(str(SLOT).encode(), f'"{SLOT}"'.encode()),
    }
    for way, message in ways.items():
        assert heard(message) == whole, way
    assert heard(b"[" + plain + b"," + plain + b"]") == whole * 2


@pytest.mark.parametrize("kind", SUBSCRIPTIONS)
def test_one_bad_notification_of_an_array_costs_itself_only(kind: str) -> None:
    plain = msgspec.json.encode(notification(kind))
    bad = notification("logs")
    bad["params"]["result"]["value"]["logs"] = None
    found = heard(b"[" + msgspec.json.encode(bad) + b"," + plain + b"]")
    assert found == [Unreadable((SUBSCRIPTIONS["logs"][1],), "no_logs", SLOT), *heard(plain)]


@pytest.mark.parametrize("kind", SUBSCRIPTIONS)
@pytest.mark.parametrize("keep", range(20, 400, 7))
def test_a_message_that_is_cut_off_is_named_as_a_loss(kind: str, keep: int) -> None:
    plain = msgspec.json.encode(notification(kind))
    if keep < len(plain):
        assert covers(heard(plain[:keep]), kind)


def test_log_lines_do_not_name_subscriptions() -> None:
    frame = notification("logs")
    frame["params"]["result"]["value"]["logs"] = ['"method":"slotNotification","subscription":24043,"slot":7']
    message = msgspec.json.encode(frame)[:-2]
    assert heard(message) == [Unreadable((SUBSCRIPTIONS["logs"][1],), "not_json", SLOT)]


def test_answers_with_text_are_read() -> None:
    assert heard(b'{"jsonrpc":"2.0","id":3,"result":"24040"}') == [Ack(3, 24_040)]
    assert heard(b'{"jsonrpc":"2.0","id":"3","result":"sub-a"}') == [Ack(3, "sub-a")]
    refusal = b'{"jsonrpc":"2.0","id":"3","error":{"code":-32602,"message":"no"}}'
    assert heard(refusal) == [Refusal(3, -32602, "no")]


@pytest.mark.parametrize("message", [b"garbage", b"", b"17", b"null", b"[1,2,3]", b'{"result":5}', b"pong"])
def test_a_message_that_is_no_notification_is_no_loss(message: bytes) -> None:
    assert heard(message) == []


@given(st.data())
def test_any_change_of_any_notification_is_survived(data: st.DataObject) -> None:
    whole = msgspec.json.encode(notification(data.draw(st.sampled_from(sorted(SUBSCRIPTIONS)))))
    at = data.draw(st.integers(0, len(whole) - 1))
    heard(whole[:at] + data.draw(st.binary(max_size=3)) + whole[at + data.draw(st.integers(0, 3)) :])
