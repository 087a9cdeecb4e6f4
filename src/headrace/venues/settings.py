"""Settings of the venue of pools."""

from typing import Annotated

import msgspec

from headrace.config import SameAs, Setting


class PoolVenueSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[quotes]`. With a bank, states are the bank's, and the other settings have no effect."""

    bank: Annotated[str | None, SameAs("bank.file")] = None
    max_slots_behind: Annotated[
        int,
        msgspec.Meta(ge=1, le=150),
        Setting(
            "most slots from the state behind a quote to the newest slot; older accounts are fetched",
            env=("QUOTE_MAX_SLOTS_BEHIND",),
        ),
    ] = 8
    pools: Annotated[
        tuple[str, ...],
        msgspec.Meta(max_length=1_000),
        Setting("addresses of pools to quote besides those that the stream shows", env=("QUOTE_POOLS",)),
    ] = ()
    accounts_max: Annotated[
        int,
        msgspec.Meta(ge=1, le=2_000),
        Setting("most accounts followed on the stream for quotes", env=("QUOTE_ACCOUNTS_MAX",)),
    ] = 200
    idle_s: Annotated[
        float,
        msgspec.Meta(gt=0),
        Setting("time after its last quote for which a pool's accounts are followed", env=("QUOTE_IDLE_S",)),
    ] = 60.0
