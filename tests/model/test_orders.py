"""Orders that earlier versions stored can be read, and what a quote learnt since is stored only where it is known."""

import msgspec

from headrace.model.amounts import BaseUnits, Bps
from headrace.model.orders import Leg, Outcome, Quote

OLD = b'{"venue":"raydium","quotes":[{"venue":"raydium","amount_in":1,"amount_out":2,"fee_bps":25}]}'


def test_a_quote_stored_without_route_and_slot_is_read_and_stored_as_before() -> None:
    (quote,) = msgspec.json.decode(OLD, type=Outcome).quotes
    assert quote == Quote(venue="raydium", amount_in=BaseUnits(1), amount_out=BaseUnits(2), fee_bps=Bps(25))
    assert msgspec.json.encode(quote) == OLD[OLD.index(b"[") + 1 : OLD.index(b"]")]


def test_route_and_slot_are_stored_and_read_back() -> None:
    (quote,) = msgspec.json.decode(OLD, type=Outcome).quotes
    known = msgspec.structs.replace(quote, route=(Leg("pool", "a", "b"), Leg("other", "b", "c")), slot=7)
    assert msgspec.json.decode(msgspec.json.encode(known), type=Quote) == known
