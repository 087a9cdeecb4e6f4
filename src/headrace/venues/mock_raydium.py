"""A stand-in for Raydium: a market with its fee."""

from headrace.runtime.clock import Clock
from headrace.venues.mock_market import MockMarket, MockMarketSettings


class MockRaydium(MockMarket):
    """Fee 0.25 %."""

    def __init__(self, settings: MockMarketSettings, clock: Clock) -> None:
        super().__init__("raydium", 25, settings, clock)
