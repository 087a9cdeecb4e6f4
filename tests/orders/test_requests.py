"""What a request is told apart by: keys in both their forms, fingerprints that match for ever, and what is missing."""

from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.model.orders import OrderRefused, OrderRequest, Watch
from headrace.orders.idempotency import fingerprint, names_of
from headrace.orders.requests import begun, read_request

BODY: dict[str, Any] = {"tokenIn": "SOL", "tokenOut": "USDC", "amount": "1500000000"}


def read(**more: Any) -> OrderRequest:
    return read_request({**BODY, **more}, amount_max=2**63)


STORED = [
    (
        {"amount": Decimal("1.5"), "slippage": Decimal("0.5"), "type": "market"},
        "49a4fe420264aba693b2b255381aa95688d18e7f1a3f47b27d7e4f4ef3356a63",
    ),
    (
        {
            "slippageBps": 100,
            "userId": "ann",
            "priority": 0,
            "expiresAt": 1800000000000,
            "clientOrderId": "c-1",
            "minOut": "7",
        },
        "ecf6cc2b41061d3363981571757fb75c0bf75183f92991352ad1725034f668a5",
    ),
    (
        {
            "tokenIn": "So11111111111111111111111111111111111111112",
            "tokenOut": "2b1kV6DkPAnxd5ixfnxCpjxmKwqjjaYmCZfHsFu24GXo",
            "amount": "5",
            "type": "stop",
            "stopRate": "3/2",
        },
        "6a7f1b709fe53b2c5b8619c7cacfa19cd62019b45625c41ea7b5818aee28f054",
    ),
    (
        {"amount": None, "uiAmount": "1.5", "type": "limit", "limitPrice": "160"},
        "8168fa88f8424cb2707f69937dec0f11803ca45559f26669ffb4f64fc9019178",
    ),
]
"""Bodies, and the fingerprints that version 0.1 stored for them (made with commit 690bce7)."""


@pytest.mark.parametrize(("body", "stored"), STORED)
def test_a_fingerprint_stored_by_version_0_1_still_matches(body: dict[str, Any], stored: str) -> None:
    assert fingerprint(read(**body)) == stored


@pytest.mark.parametrize(("body", "stored"), STORED)
def test_a_field_that_a_later_release_adds_counts_only_where_it_is_given(body: dict[str, Any], stored: str) -> None:
    """The same, in a release whose requests have one field more."""
    later: Any = msgspec.defstruct("Later", [("colour", str, "none")], bases=(OrderRequest,), frozen=True, kw_only=True)
    values = msgspec.structs.asdict(read(**body))
    assert fingerprint(later(**values)) == stored
    assert fingerprint(later(**values, colour="red")) != stored


def _fields() -> tuple[msgspec.structs.FieldInfo, ...]:
    return msgspec.structs.fields(OrderRequest)


def test_every_field_makes_another_fingerprint() -> None:
    whole = read(expiresAt=1800000000000, minOut="7", clientOrderId="c")
    changed = [
        msgspec.structs.replace(whole, **{name: value})
        for name, value in (
            ("user_id", "bob"),
            ("said_in", "x"),
            ("said_out", "x"),
            ("token_in", whole.token_out),
            ("token_out", whole.token_in),
            ("amount", 1),
            ("slippage_bps", 1),
            ("type", "stop"),
            ("trigger", read(type="stop", stopRate="3/2").trigger),
            ("min_out", None),
            ("priority", 1),
            ("expires_at_ms", None),
            ("mode", "live"),
            ("client_order_id", None),
            ("expires_in_ms", 1),
            ("watch", Watch(state={"n": 1})),
        )
    ]
    assert len(changed) == len(_fields())
    assert len({fingerprint(request) for request in [whole, *changed]}) == len(changed) + 1


def test_a_length_of_time_is_the_same_at_each_asking() -> None:
    first, again = begun(read(expiresInMs=60_000), 1_000), begun(read(expiresInMs=60_000), 31_000)
    assert (first.expires_at_ms, again.expires_at_ms) == (61_000, 91_000)
    assert fingerprint(first) == fingerprint(again) != fingerprint(begun(read(expiresInMs=60_001), 1_000))
    assert fingerprint(first) != fingerprint(read(expiresAt=61_000))


@pytest.mark.parametrize(
    ("key", "names"),
    [
        ("abc", ["key:abc"]),
        ('"abc"', ['key:"abc"', "key:abc"]),
        (r'"a\"b\\c"', [r'key:"a\"b\\c"', 'key:a"b\\c']),
        ('a"b\\c', ['key:a"b\\c']),
        ('"abc', ['key:"abc']),
        (r'"a\bc"', [r'key:"a\bc"']),  # no string of RFC 8941: stands for itself
        ('"a"b"', ['key:"a"b"']),
        ('"', ['key:"']),
        ('"abc";v=1', ['key:"abc";v=1']),
        ('" abc "', ['key:" abc "', "key: abc "]),
        ('"' + "a" * 128 + '"', ['key:"' + "a" * 128 + '"', "key:" + "a" * 128]),
    ],
)
def test_a_key_stands_for_its_plain_and_its_quoted_form(key: str, names: list[str]) -> None:
    assert names_of(read(), key) == names


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=128))
def test_a_key_and_its_quoted_form_are_one(key: str) -> None:
    quoted = '"' + key.replace("\\", "\\\\").replace('"', '\\"') + '"'
    assert names_of(read(), quoted)[-1] == f"key:{key}"


@pytest.mark.parametrize("key", ["", '""', "ä", "a\nb", "a" * 129, '"' + "a" * 129 + '"'])
def test_a_text_that_can_not_be_a_key_is_refused(key: str) -> None:
    with pytest.raises(OrderRefused) as refused:
        names_of(read(), key)
    assert refused.value.reason == "invalid_idempotency_key"


@pytest.mark.parametrize(
    ("body", "faults"),
    [
        ({}, {"tokenIn": "is missing", "tokenOut": "is missing", "amount": "is missing"}),
        ({**BODY, "tokenIn": None}, {"tokenIn": "is missing"}),
        ({"tokenIn": "SOL", "tokenOut": "USDC"}, {"amount": "is missing"}),
        ({**BODY, "type": "limit"}, {"limitPrice": "is missing"}),
        ({**BODY, "type": "stop", "stopPrice": None}, {"stopPrice": "is missing"}),
        ({**BODY, "tokenOut": 7}, {"tokenOut": "is not a mint"}),
        ({**BODY, "uiAmount": "1"}, {"amount": "is given twice"}),
        ({**BODY, "expiresAt": 1, "expiresInMs": 1}, {"expiresAt": "is given twice"}),
        ({**BODY, "expiresInMs": 0}, {"expiresInMs": "is not an integer"}),
    ],
)
def test_a_missing_field_is_named_as_missing(body: dict[str, Any], faults: dict[str, str]) -> None:
    with pytest.raises(OrderRefused) as refused:
        read_request(body, amount_max=2**63)
    assert refused.value.fields.keys() == faults.keys()
    for name, fault in faults.items():
        assert refused.value.fields[name].startswith(fault)
        assert f"{name} {fault}" in refused.value.message


_LIMIT: dict[str, Any] = {**BODY, "type": "limit"}
_STOP: dict[str, Any] = {**BODY, "type": "stop"}
_WHOLE: dict[str, Any] = {"tokenIn": "SOL", "tokenOut": "USDC"}
_NO_DECIMALS: dict[str, Any] = {**_WHOLE, "tokenIn": "2b1kV6DkPAnxd5ixfnxCpjxmKwqjjaYmCZfHsFu24GXo"}


@pytest.mark.parametrize(
    ("body", "name"),
    [
        *(({**_WHOLE, name: wrong}, name) for name in ("amount", "uiAmount") for wrong in ("x", "-1", "", [1], True)),
        *(({**_WHOLE, name: wrong}, name) for name in ("amount", "uiAmount") for wrong in (0, 10**40)),
        ({**_WHOLE, "amount": "0"}, "amount"),
        ({**_WHOLE, "amount": str(2**63 + 1)}, "amount"),
        ({**_WHOLE, "uiAmount": "9223372036.854775809"}, "uiAmount"),  # one unit above what is allowed here
        ({**_WHOLE, "uiAmount": "0.0000000001"}, "uiAmount"),
        ({**_NO_DECIMALS, "uiAmount": "1"}, "uiAmount"),
        ({**_NO_DECIMALS, "amount": 1}, "amount"),
        ({**_WHOLE, "amount": None, "uiAmount": "x"}, "uiAmount"),
        ({**_WHOLE, "amount": "1", "uiAmount": "1"}, "amount"),
        *(({**BODY, "slippageBps": wrong}, "slippageBps") for wrong in ("x", -1, 10_001, True, Decimal("1.5"))),
        *(({**BODY, "slippage": wrong}, "slippage") for wrong in ("x", -1, 2, True, Decimal("1.5"))),
        ({**BODY, "slippage": None, "slippageBps": -1}, "slippageBps"),
        ({**BODY, "slippage": 0, "slippageBps": 0}, "slippage"),
        *(({**_LIMIT, "limitPrice": wrong}, "limitPrice") for wrong in ("x", 0, "-1", [1], "1e50", str(10**30))),
        *(({**_LIMIT, "limitRate": wrong}, "limitRate") for wrong in ("x", 1, "0/1", "1/0", "99999999999999999999/1")),
        ({**_LIMIT, "limitPrice": "18446744073709"}, "limitPrice"),  # in all, more than 64 bits of base units
        ({**_LIMIT, "limitRate": "18446744073709551615/1"}, "limitRate"),  # the same
        ({**_LIMIT, "limitPrice": None, "limitRate": "18446744073709551615/1"}, "limitRate"),
        ({**_LIMIT, "limitPrice": "1", "limitRate": "1/1"}, "limitPrice"),
        *(({**_STOP, "stopPrice": wrong}, "stopPrice") for wrong in ("x", 0, "-1", [1], "1e50", str(10**30))),
        *(({**_STOP, "stopRate": wrong}, "stopRate") for wrong in ("x", 1, "0/1", "1/0", "99999999999999999999/1")),
        ({**_STOP, "stopPrice": "1", "stopRate": "1/1"}, "stopPrice"),
        *(({**BODY, name: "1"}, name) for name in ("limitPrice", "limitRate", "stopPrice", "stopRate")),
        *(({**BODY, "expiresAt": wrong}, "expiresAt") for wrong in ("x", -1, 2**53 + 1, True)),
        *(({**BODY, "expiresInMs": wrong}, "expiresInMs") for wrong in ("x", 0, -1, 2**45 + 1, True)),
        ({**BODY, "expiresAt": None, "expiresInMs": 0}, "expiresInMs"),
    ],
)
def test_a_fault_is_named_after_the_field_that_was_given(body: dict[str, Any], name: str) -> None:
    with pytest.raises(OrderRefused) as refused:
        read_request(body, amount_max=2**63)
    assert list(refused.value.fields) == [name]
    assert f"{name} {refused.value.fields[name]}" in refused.value.message
