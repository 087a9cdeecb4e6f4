"""What stands behind a topic's colon: each kind its own rule, and a user is whoever a token can name."""

import pytest

from headrace.model import topics
from headrace.model.errors import RequestError

MINT = "So11111111111111111111111111111111111111112"
USDC = "EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v"


@pytest.mark.parametrize(
    "name",
    ["orders:auth0|123", "orders:a:b c", f"orders:{'~' * 128}", "order:a-b.c@d_E", f"app:{'a' * 64}", "trades:pump",
     f"trades:{MINT}", f"token:{MINT}", f"pool:{MINT}",
     f"candles:{MINT}:{MINT}:1m", f"quotes:{MINT}:{USDC}:18446744073709551615"],
)  # fmt: skip
def test_names_that_can_exist(name: str) -> None:
    kind, _, key = name.partition(":")
    assert topics.parse(name) == (kind, key)


@pytest.mark.parametrize(
    "name",
    ["orders:", "orders:é", "orders:a\n", f"orders:{'~' * 129}", "order:a|b", f"order:{'a' * 65}", "app:a b",
     f"app:{'a' * 65}", "trades:Pump", "token:pump", "pool:", f"candles:{MINT}", f"candles:{MINT}:{MINT}",
     f"quotes:{MINT}:{MINT}:1", f"quotes:{MINT}:{USDC}", f"quotes:{MINT}", f"quotes:{MINT}:{USDC}:0",
     f"quotes:{MINT}:{USDC}:01", f"quotes:{MINT}:{USDC}:1:1", f"quotes:SOL:{USDC}:1", f"quotes:{MINT}:{USDC}:1\n",
     f"quotes:{MINT}:{USDC}:{'1' * 21}", f"candles:{MINT}:{MINT}:7m",
     f"candles:{MINT}:pump:1m", f"candles:{MINT}:{MINT}:1m:", "user:ann", "nothing:a",
     "nothing"],
)  # fmt: skip
def test_names_that_can_not(name: str) -> None:
    with pytest.raises(RequestError):
        topics.parse(name)
