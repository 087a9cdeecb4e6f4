"""What is a key, topic by topic, as the reference of the wire protocol tells it."""

from typing import Any

import msgspec
import pytest

from headrace.model.events import Label
from headrace.model.states import has_state, state_key


@pytest.mark.parametrize(
    ("topic", "data", "key"),
    [
        ("account:A", {"pubkey": "A"}, "A"),
        ("accounts:pump", {"pubkey": "A", "type": "Account"}, "A"),
        ("accounts:pump", {"pubkey": 5}, None),
        ("accounts:pump", {}, None),
        ("token_updates", {"type": "TokenCreated", "mint": "M"}, "TokenCreated M "),
        ("token_updates", {"type": "MarketData", "mint": "M", "quote_mint": "Q"}, "MarketData M Q"),
        ("token_updates", {"type": "MarketData", "mint": "M", "quote_mint": None}, None),
        ("token_updates", {"type": "MarketData"}, None),
        ("market-data", {"type": "MarketData", "mint": "M", "quote_mint": "Q"}, "MarketData M Q"),
        ("market-data:M", {"type": "MarketData", "mint": "M", "quote_mint": "Q"}, "MarketData M Q"),
        ("token:M", {"type": "TokenPriceUpdate"}, "TokenPriceUpdate M "),
        ("token:M", {"type": "TokenPriceUpdate", "mint": "other", "quote_mint": "Q"}, "TokenPriceUpdate M Q"),
        ("pool:P", {"type": "Pool"}, "Pool"),
        ("quotes:A:B:5", {"type": "NoQuote", "inputMint": "A", "outputMint": "B"}, "A B"),
        ("trades:pump", {"pubkey": "A", "type": "Trade", "mint": "M"}, None),
        ("app:news", {"type": "MarketData", "mint": "M"}, None),
    ],
)
def test_keys(topic: str, data: dict[str, Any], key: str | None) -> None:
    assert state_key(topic, data) == key
    assert has_state(topic) or key is None


def test_a_label_is_one_short_text() -> None:
    label = Label("MarketData M Q", "7:M:market:1", 7, certain=False)
    text = msgspec.json.encode(label)
    assert text == b'["state","MarketData M Q","7:M:market:1",7,false]'
    assert msgspec.json.decode(text, type=Label) == label
