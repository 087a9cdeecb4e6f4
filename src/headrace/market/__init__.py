"""Prices, volumes and market caps of mints, computed from their trades, and the settings of `[market]`."""

from typing import Annotated

import msgspec

from headrace.config import Setting


class MarketSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[market]`: which market numbers are published, and how many are kept."""

    enabled: Annotated[
        bool, Setting("publish prices, volumes and market caps of the mints that trade", env=("MARKET_ENABLED",))
    ] = True
    interval_slots: Annotated[
        int,
        msgspec.Meta(ge=0, le=10_000),
        Setting(
            "slots (0.2 to 0.4 s each) between two messages about a mint; 0: a message for each trade",
            env=("MARKET_INTERVAL_SLOTS",),
        ),
    ] = 3
    mints_max: Annotated[
        int,
        msgspec.Meta(ge=1),
        Setting(
            "most mints counted; with more, the mint with the oldest last trade is dropped", env=("MARKET_MINTS_MAX",)
        ),
    ] = 20_000
    minutes_max: Annotated[
        int,
        msgspec.Meta(ge=1),
        Setting(
            "most minutes kept, of all mints together; with more, the mint with the oldest last trade is dropped",
            env=("MARKET_MINUTES_MAX",),
        ),
    ] = 150_000
