"""Prices, volumes and market caps of mints, computed from their trades. Also holds the settings of `[market]`."""

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
            "slots (0.2 to 0.4 s each) between two messages about a mint; 0 tells of each trade",
            env=("MARKET_INTERVAL_SLOTS",),
        ),
    ] = 3
    mints_max: Annotated[
        int,
        msgspec.Meta(ge=1),
        Setting("mints counted at once; the one that traded longest ago is forgotten", env=("MARKET_MINTS_MAX",)),
    ] = 20_000
    minutes_max: Annotated[
        int,
        msgspec.Meta(ge=1),
        Setting(
            "minutes with trades kept, of all mints together; beyond, the mint that traded longest ago is forgotten",
            env=("MARKET_MINUTES_MAX",),
        ),
    ] = 150_000
