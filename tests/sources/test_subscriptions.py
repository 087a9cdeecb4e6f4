"""ChainSubscription texts, requests and the registry of one connection."""

import pytest

from headrace.model.errors import ConfigError
from headrace.sources.subscriptions import SLOTS, ChainSubscription, parse, parse_all
from headrace.testing.ledger import made_up_key, made_up_signature

KEY = made_up_key("a")
LOGS = ChainSubscription("logs", KEY)
ACCOUNT = ChainSubscription("account", KEY)


def resolve(name: str) -> str:
    return {"pump": KEY}[name]


@pytest.mark.parametrize(
    ("text", "feed"),
    [
        ("logs:pump", f"logs:{KEY}"),
        (f" logs:{KEY} ", f"logs:{KEY}"),
        ("program:pump", f"program:{KEY}"),
        (f"program:{KEY}?dataSize=165&memcmp=32:{KEY}", f"program:{KEY}?dataSize=165&memcmp=32:{KEY}"),
        (f"account:{KEY}", f"account:{KEY}"),
        ("transactions:pump", f"transactions:{KEY}"),
        (f"transactions:{KEY}", f"transactions:{KEY}"),
        (f"signature:{made_up_signature(1)}", f"signature:{made_up_signature(1)}"),
    ],
)
def test_texts_become_feeds(text: str, feed: str) -> None:
    assert parse(text, resolve).feed == feed


@pytest.mark.parametrize(
    "text",
    [
        "", "logs", "logs:", "logs:nobody", "account:pump", "slots", "block:pump", "signature:" + KEY,
        "signature:" + "1" * 64 + "O", "logs:pump?dataSize=1", "program:pump?dataSize=x", "program:pump?memcmp=1",
        "program:pump?memcmp=1:0OIl", "program:pump?owner=1",
        "transactions:", "transactions:nobody", "transactions:pump?dataSize=1",
        "program:pump?" + "&".join(["dataSize=1"] * 5),
    ],
)  # fmt: skip
def test_wrong_texts_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="SUBSCRIPTIONS"):
        parse(text, resolve)


def test_slots_come_first_and_nothing_twice() -> None:
    assert parse_all(["logs:pump", f"logs:{KEY}"], resolve) == (SLOTS, LOGS)
