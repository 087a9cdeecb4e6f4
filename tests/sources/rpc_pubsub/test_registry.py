"""ChainSubscription texts, requests and the registry of one connection."""

from typing import Any

import msgspec

from headrace.sources.rpc_pubsub.registry import Registry, request_of
from headrace.sources.subscriptions import SLOTS, ChainSubscription, parse
from headrace.testing.ledger import made_up_key

KEY = made_up_key("a")
LOGS = ChainSubscription("logs", KEY)
ACCOUNT = ChainSubscription("account", KEY)


def resolve(name: str) -> str:
    return {"pump": KEY}[name]


def sent(request: bytes) -> Any:
    return msgspec.json.decode(request)


def test_requests_have_the_documented_parameters() -> None:
    filtered = parse(f"program:{KEY}?dataSize=165&memcmp=32:{KEY}", resolve)
    assert sent(request_of(SLOTS, 1, "processed", "base64")) == {
        "jsonrpc": "2.0", "id": 1, "method": "slotSubscribe", "params": [],
    }  # fmt: skip
    assert sent(request_of(LOGS, 2, "processed", "base64"))["params"] == [
        {"mentions": [KEY]},
        {"commitment": "processed"},
    ]
    assert sent(request_of(filtered, 3, "confirmed", "base64+zstd"))["params"] == [
        KEY,
        {
            "encoding": "base64+zstd",
            "commitment": "confirmed",
            "filters": [{"dataSize": 165}, {"memcmp": {"offset": 32, "bytes": KEY}}],
        },
    ]


def registry(*wanted: ChainSubscription) -> Registry:
    return Registry(wanted or (SLOTS, LOGS, ACCOUNT), "processed", "base64+zstd", retry_s=10)


def test_everything_is_asked_for_once_and_then_acknowledged() -> None:
    known = registry()
    assert [sent(request)["id"] for request in known.due(0)] == [1, 2, 3]
    assert known.due(1) == []
    assert [known.acknowledge(number, number * 100) for number in (1, 2, 3)] == [SLOTS, LOGS, ACCOUNT]
    assert known.complete
    assert known.active == {100: SLOTS, 200: LOGS, 300: ACCOUNT}
    assert known.acknowledge(1, 100) is None
    assert known.acknowledge(99, 1) is None


def test_what_is_never_answered_counts_as_refused() -> None:
    known = registry()
    known.due(0)
    known.acknowledge(1, 100)
    assert known.unanswered(5, ack_timeout_s=5) == []
    assert known.unanswered(5.1, ack_timeout_s=5) == [LOGS, ACCOUNT]
    assert known.refused == {LOGS: "no answer in 5 s", ACCOUNT: "no answer in 5 s"}
    assert known.complete
    assert known.due(15) == []
    assert [sent(request)["method"] for request in known.due(15.1)] == ["logsSubscribe", "accountSubscribe"]
    assert known.acknowledge(2, 200) is None, "the late answer to the first request"
    assert [sent(request)["params"] for request in known.due(16)] == [[200]]
    assert known.acknowledge(4, 201) == LOGS
    assert known.acknowledge(3, 300) is None
    assert known.acknowledge(5, 300) == ACCOUNT


def test_a_refusal_waits_longer_each_time() -> None:
    known = registry(LOGS)
    known.due(0)
    assert known.refuse(1, -32601, "no", 0) == LOGS
    assert known.refused == {LOGS: "-32601 no"}
    assert known.due(9.9) == []
    assert len(known.due(10)) == 1
    known.refuse(2, -32601, "no", 10)
    assert known.due(29.9) == []
    assert len(known.due(30)) == 1
    known.acknowledge(3, 7)
    assert known.refused == {}
    assert known.complete


def test_refused_zstd_is_asked_for_in_base64_at_once() -> None:
    known = registry(ACCOUNT)
    assert b"base64+zstd" in known.due(0)[0]
    assert known.refuse(1, -32602, "invalid encoding", 0) is None
    assert sent(known.due(0)[0])["params"][1]["encoding"] == "base64"
    assert known.refuse(2, -32602, "still no", 0) == ACCOUNT


def test_wanting_less_says_goodbye_even_to_what_is_acknowledged_later() -> None:
    known = registry(SLOTS, LOGS, ACCOUNT)
    known.due(0)
    known.acknowledge(2, 22)
    known.want((SLOTS,))
    assert [sent(request) for request in known.due(1)] == [
        {"jsonrpc": "2.0", "id": 4, "method": "logsUnsubscribe", "params": [22]}
    ]
    assert known.acknowledge(3, 33) is None
    assert [sent(request)["params"] for request in known.due(1)] == [[33]]
    assert known.active == {}
    known.acknowledge(1, 11)
    assert known.complete


def test_a_new_subscription_is_requested() -> None:
    known = registry(SLOTS)
    known.due(0)
    known.acknowledge(1, 11)
    known.want((SLOTS, LOGS))
    assert not known.complete
    assert [sent(request)["method"] for request in known.due(1)] == ["logsSubscribe"]
