"""Facts for histories, with keys and times as on the chain."""

import hashlib
from typing import Any

from solders.pubkey import Pubkey
from solders.signature import Signature

from headrace.model.events import DecodedEvent, EventBody
from headrace.model.facts import EventSeen, MintFacts, Origin, TokenCreated, Traded
from headrace.model.keys import WSOL_MINT
from headrace.model.trades import Side, Trade
from headrace.model.updates import Commitment

PUMP = "6EF8rrecthR5Dkzon8Nwu78hRvfCKubJ14M5uBEwF6P"


def key(name: str) -> str:
    """Return a public key, always the same for a name."""
    return str(Pubkey.from_bytes(hashlib.sha256(name.encode()).digest()))


def signature(name: str) -> str:
    """Return a signature, always the same for a name."""
    return str(Signature.from_bytes(hashlib.sha512(name.encode()).digest()))


def seen(
    slot: int,
    name: str,
    *,
    nth: int = 0,
    commitment: Commitment = "processed",
    unproven: bool = False,
    program: str = "pump",
    program_id: str = PUMP,
) -> EventSeen:
    """Return the `nth` event of the transaction with this name."""
    event = DecodedEvent(
        program=program, program_id=program_id, name="TradeEvent", via="log", path=(0,), ordinal=nth, data={}
    )
    origin = Origin(slot, signature(name), "rpc-0", f"logs:{program_id}", commitment, unproven)
    return EventSeen(f"{slot}:{signature(name)}:0:{nth}", origin, event, EventBody(b"{}", 0, 0, 2))


def trade(
    slot: int,
    name: str,
    *,
    mint: str | None = "M",
    quote_mint: str | None = WSOL_MINT,
    base: int = 2_000,
    quote: int = 1_000,
    user: str = "alice",
    side: Side = "buy",
    time_s: int = 1_790_000_000,
    again: bool = False,
    decimals: tuple[int | None, int | None] = (6, 9),
    **origin: Any,
) -> Traded:
    """Return a trade; `mint` and `user` are names of keys."""
    base_mint = None if mint is None else key(mint)
    made = Trade(base_mint, quote_mint, side, key(user), base, quote, key("pool"))
    return Traded(
        seen(slot, name, **origin), made, time_s, MintFacts(decimals[0], None), MintFacts(decimals[1], None), again
    )


def token(slot: int, name: str, *, mint: str = "M", creator: str = "alice", **origin: Any) -> TokenCreated:
    """Return a new token that is called after its mint."""
    return TokenCreated(seen(slot, name, **origin), key(mint), f"The {mint}", mint, key(creator))
