"""Log lines: shape, levels that change live, secrets hidden wherever they hide, filtered calls nearly free."""

import json
import logging
import time
from collections.abc import Iterator
from typing import Any, cast

import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.runtime import log as room
from headrace.runtime.log import LogLevel, configure, set_level

MARKER = "Zq8mP3vX7tKd2LwN9RbY"


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    handlers = list(logging.getLogger().handlers)
    yield
    logging.getLogger().handlers[:] = handlers
    configure("debug", "console")


class Lines:
    """The JSON lines on stderr since last asked."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def read(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text().splitlines()]

    def text(self) -> str:
        captured = self._capsys.readouterr()
        assert captured.out == ""
        return captured.err


@pytest.fixture
def lines(capsys: pytest.CaptureFixture[str]) -> Lines:
    return Lines(capsys)


def logger() -> Any:
    return structlog.get_logger("room")


def test_a_line_has_event_level_room_time_and_fields(lines: Lines) -> None:
    configure("info", "json")
    logger().info("connected", source="rpc-0", slot=5)
    (line,) = lines.read()
    assert line.pop("timestamp").endswith("Z")
    assert line == {"event": "connected", "level": "info", "room": "room", "source": "rpc-0", "slot": 5}


def test_level_changes_live_for_loggers_that_exist(lines: Lines) -> None:
    configure("warning", "json")
    log = logger()
    bound = log.bind(source="rpc-0")
    for level, said in (("warning", 2), ("debug", 4), ("error", 1), ("info", 3)):
        set_level(cast("LogLevel", level))
        for each in (log, bound):
            each.debug("x")
            each.info("x")
            each.warning("x")
            each.error("x")
        assert len(lines.read()) == 2 * said, level


def test_format_changes_for_loggers_that_exist(lines: Lines) -> None:
    log = logger()
    configure("info", "json")
    log.info("one")
    assert lines.read()[0]["event"] == "one"
    configure("info", "console")
    log.info("two", why="because")
    text = lines.text()
    assert "two" in text
    assert "why=because" in text
    assert not text.startswith("{")


def test_exceptions_are_written_out_without_their_secrets(lines: Lines) -> None:
    configure("info", "json")

    def connect() -> None:
        raise ConnectionError(f"cannot reach wss://node.example/{MARKER}/ with ?api-key={MARKER}")

    try:
        connect()
    except ConnectionError as error:
        logger().exception("connect_failed", error=error)
        logger().error("connect_failed", exc_info=error)
    first, second = lines.read()
    for line in (first, second):
        assert "ConnectionError: cannot reach wss://node.example/***/ with ?api-key=***" in line["exception"]
    assert first["error"] == "ConnectionError('cannot reach wss://node.example/***/ with ?api-key=***')"


def test_libraries_come_out_the_same_way(lines: Lines) -> None:
    configure("info", "json")
    configure("info", "json")
    logging.getLogger("websockets.client").warning("failed: wss://user:%s@node.example", MARKER)
    logging.getLogger("httpx").info("HTTP Request: POST https://node.example/?api-key=%s", MARKER)
    (line,) = lines.read()
    assert line["text"] == "failed: wss://***@node.example"
    assert line["room"] == "websockets.client"


def test_control_characters_cannot_forge_lines(lines: Lines) -> None:
    configure("info", "console")
    logger().warning("refused", topic="x\r\x1b[2Jspoofed")
    text = lines.text()
    assert "\x1b[2J" not in text
    assert "\r" not in text
    assert "\\x1b[2Jspoofed" in text


def test_values_that_are_not_json_do_not_break_the_line(lines: Lines) -> None:
    configure("info", "json")
    logger().info("odd", raw=b"\x00\xff", kinds={1, 2}, nested={"a": [object], 5: float("inf")}, bad="\ud800")
    assert lines.read()[0]["nested"]["a"] == ["<class 'object'>"]


hiding_places = st.sampled_from(
    [
        lambda s: {"url": f"wss://x.helius-rpc.com/?api-key={s}"},
        lambda s: {"url": f"https://a.solana-mainnet.quiknode.pro/{s}/"},
        lambda s: {"url": f"https://solana-mainnet.g.alchemy.com/v2/{s}"},
        lambda s: {"url": f"redis://user:{s}@10.0.0.1:6379/0"},
        lambda s: {"urls": [f"ws://127.0.0.1/,wss://node/{s}", ("x", f"https://h/?token={s}")]},
        lambda s: {"nested": {"deeper": {"dsn": f"postgresql://u:p@{s}/x@db/orders"}}},
        lambda s: {"error": ValueError(f"at https://h/p/{s}?x=1")},
        lambda s: {"text": f"connect(password='{s}', x=1)"},
        lambda s: {"text": f"Authorization: Bearer {s}"},
        lambda s: {"headers": {"Authorization": f"Bearer {s}", "X-Token": s}},
        lambda s: {"api_key": s},
        lambda s: {"x_token": [s]},
        lambda s: {"token": s},
        lambda s: {"private_key": {"raw": s}},
        lambda s: {"text": f'{{"password": "{s}"}}'},
        lambda s: {"slots": {f"https://h/{s}": 1}},
    ]
)


@given(hide=hiding_places, secret=st.text("abcdefXYZ0123456789", min_size=16, max_size=40), fmt=st.booleans())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_secret_is_ever_written(lines: Lines, hide: Any, secret: str, fmt: bool) -> None:
    secret += "A1"
    configure("info", "json" if fmt else "console")
    logger().warning("event", **hide(secret))
    text = lines.text()
    assert "event" in text
    assert secret not in text


def test_what_is_public_stays(lines: Lines) -> None:
    configure("info", "json")
    signature = "5VERv8NMvzbJMEkV8xnrLkEaWRtSz9CosKDYjCJjBRnbJLgp8uirBgmQpjKhoR4tjF3ZpRzrFmBV6UjKdiSZkQUW"
    mint = "So11111111111111111111111111111111111111112"
    fields = {
        "signature": signature,
        "mint": mint,
        "token": mint,
        "url": "ws://127.0.0.1:8900/",
        "page": "https://docs.example.org/reference/configuration.html?lang=en",
        "topic": f"trades:{mint}",
        "tokens": [mint],
        "quote_token_account": mint,
        "is_private": False,
        "detail": "key: 5 of 7, token=So1, a=b",
    }
    logger().info("trade", **fields)
    (line,) = lines.read()
    assert {name: line[name] for name in fields} == fields


def test_a_filtered_call_is_nearly_free(lines: Lines) -> None:
    """Measured against a plain call of the same machine in the same moment, so that slow machines do not matter."""
    configure("info", "json")
    log = logger()

    def plain(event: str, **fields: object) -> None:
        pass

    def best(call: Any) -> float:
        laps = []
        for _ in range(15):
            start = time.perf_counter()
            for _ in range(500):
                call("x", a=1, b=2)
            laps.append(time.perf_counter() - start)
        return min(laps)

    log.debug("warm")
    assert best(lambda *a, **k: log.debug(*a, **k)) < 25 * best(lambda *a, **k: plain(*a, **k))
    assert lines.text() == ""


def test_redact_is_reachable_here() -> None:
    assert room.redact("https://h/?api-key=x") == "https://h/?api-key=***"
