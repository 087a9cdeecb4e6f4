"""A trailing stop, as a type of a test's register: waits until the market has fallen by a share from its highest."""

from fractions import Fraction
from typing import Any

from headrace.model.amounts import BaseUnits
from headrace.model.orders import BPS_WHOLE, U64_MAX, Trigger, Watch
from headrace.order_types import Field, OrderBody, Terms, WrongTerms

_NAME = "trailBps"


class TrailingStop:
    """`trailBps`. The highest rate is that of the trades since the order was taken; it is the state."""

    fields = (Field(_NAME, "bps", "wait until the price has fallen by so much from its highest", option="trail-bps"),)

    def terms(self, asked: OrderBody) -> Terms:
        """Read the share, from 1 to 9,999 basis points. Raise WrongTerms."""
        bps = asked.body.get(_NAME)
        if bps is None:
            raise WrongTerms(_NAME, "is missing")
        if isinstance(bps, bool) or not isinstance(bps, int) or not 0 < bps < BPS_WHOLE:
            raise WrongTerms(_NAME, f"is not an integer from 1 to {BPS_WHOLE - 1}")
        return Terms(watch=_watch(bps, Fraction(0)))

    def observe(self, watch: Watch, out: BaseUnits, per: BaseUnits) -> Watch:
        """Return the watch after a trade: a higher rate is the new highest one."""
        return _watch(watch.state["bps"], max(_highest(watch), Fraction(out, per)))

    def join(self, one: Watch, other: Watch) -> Watch:
        """Return the watch with the higher of both highest rates."""
        return _watch(one.state["bps"], max(_highest(one), _highest(other)))


def _highest(watch: Watch) -> Fraction:
    return Fraction(*watch.state["highest"])


def _watch(bps: int, highest: Fraction) -> Watch:
    stop = highest * (BPS_WHOLE - bps) / BPS_WHOLE
    return Watch(
        state={"bps": bps, "highest": list(highest.as_integer_ratio())},
        trigger=_trigger("at_most", stop) if highest else None,
        moves=_trigger("at_least", highest),
    )


def _trigger(when: Any, rate: Fraction) -> Trigger:
    """Return the trigger of a rate, whose two amounts are cut to 64 bits: the rate is rounded down."""
    out, per = rate.as_integer_ratio()
    while out > U64_MAX or per > U64_MAX:
        out, per = out // 2, -(-per // 2)
    return Trigger(when=when, out=BaseUnits(out), per=BaseUnits(per))
