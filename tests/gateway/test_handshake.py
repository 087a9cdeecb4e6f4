"""Usual handshakes are answered without `websockets`, and exactly as it would answer them."""

from base64 import b64encode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.gateway.transports.handshake import UpgradeRequest, judged, straight
from tests.examples import examples

USUAL = {
    "host": ["example.org"],
    "upgrade": ["websocket"],
    "connection": ["Upgrade"],
    "sec-websocket-key": ["dGhlIHNhbXBsZSBub25jZQ=="],
    "sec-websocket-version": ["13"],
}

FIELDS = {
    "upgrade": ["websocket", "WebSocket", "h2c", "websocket, h2c", ""],
    "connection": ["Upgrade", "keep-alive, Upgrade", "close", "upgrade,keep-alive", "Upgrade;q=1"],
    "sec-websocket-key": [
        "dGhlIHNhbXBsZSBub25jZQ==",
        "AAAAAAAAAAAAAAAAAAAAAB==",
        "dGhlIHNhbXBsZSBub25jZQ",
        b64encode(b"x" * 17).decode(),
        b64encode(b"x" * 19).decode(),
        "dGhlIHNhbXBsZSBub25j@Q==",
        "ÿ" * 22 + "==",
        "",
    ],
    "sec-websocket-version": ["13", "8", "13, 8", " 13"],
    "origin": ["https://example.org", "null"],
    "sec-websocket-extensions": [
        "permessage-deflate; client_max_window_bits",
        "permessage-deflate",
        "permessage-deflate; server_max_window_bits=10",
        "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
        "x-webkit-deflate-frame, permessage-deflate",
        "unknown",
        "permessage-deflate; =",
        ",",
        "permessage-deflate; a=" + "b" * 300,
    ],
    "sec-websocket-protocol": [
        "stream.v1",
        "stream.v1, jwt.e30.e30.x-_",
        "other,\tstream.v1",
        "other",
        "stream.v1,",
        "stream v1",
        "",
        '"stream.v1"',
    ],
}


def values_of(name: str) -> st.SearchStrategy[list[str]]:
    usual = USUAL.get(name, [])
    some = st.lists(st.sampled_from(FIELDS[name]), max_size=2)
    return st.one_of(st.just(usual), st.just(usual), some)


@given(
    fields=st.fixed_dictionaries({name: values_of(name) for name in FIELDS}),
    compression=st.booleans(),
)
@settings(max_examples=examples(2000))
def test_what_is_answered_straight_is_answered_alike(fields: dict[str, list[str]], compression: bool) -> None:
    request = UpgradeRequest("/ws", {name: values for name, values in fields.items() if values})
    found = straight(request, compression=compression)
    if found is not None:
        assert found == judged(request, compression=compression)._replace(offered=found.offered)


@pytest.mark.parametrize("compression", [False, True])
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"connection": ["keep-alive, Upgrade"], "origin": ["https://example.org"]},
        {"sec-websocket-protocol": ["stream.v1, jwt.e30.e30.x"]},
        {"sec-websocket-extensions": ["permessage-deflate; client_max_window_bits"]},
        {"sec-websocket-extensions": ["permessage-deflate; server_max_window_bits=10"]},
    ],
    ids=["plain", "browser", "protocols", "deflate", "a window that is not given"],
)
def test_usual_handshakes_need_no_other_judge(more: dict[str, list[str]], compression: bool) -> None:
    request = UpgradeRequest("/ws?batch=1", {**USUAL, **more})
    found = straight(request, compression=compression)
    assert found is not None
    assert found == judged(request, compression=compression)


@pytest.mark.parametrize("name", ["upgrade", "connection", "sec-websocket-key", "sec-websocket-version"])
def test_a_handshake_that_lacks_a_field_or_has_it_twice_is_refused(name: str) -> None:
    without = {other: values for other, values in USUAL.items() if other != name}
    for fields in (without, {**USUAL, name: USUAL[name] * 2}):
        request = UpgradeRequest("/ws", fields)
        assert straight(request, compression=False) is None
        assert judged(request, compression=False).status != 101 or name == "connection"
