"""A stand-in for Meteora: a market with its fee."""

from headrace.runtime.clock import Clock
from headrace.venues.mock_market import MockMarket, MockMarketSettings


class MockMeteora(MockMarket):
    """Fee 0.3 %."""

    def __init__(self, settings: MockMarketSettings, clock: Clock) -> None:
        super().__init__("meteora", 30, settings, clock)
