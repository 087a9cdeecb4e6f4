"""A limit order: waits until the market gives at least the limit, and accepts no less."""

from headrace.model.amounts import BaseUnits
from headrace.model.orders import Trigger
from headrace.order_types import Field, OrderBody, Terms
from headrace.order_types.rates import read_rate


class Limit:
    """`limitPrice` or `limitRate`.

    The limit also applies to the execution: a swap below the limit fails on the chain.
    """

    fields = (
        Field("limitPrice", "price", "wait for this price: whole tokens out for one in, or more", option="limit"),
        Field("limitRate", "rate", 'the limit in base units, "out/in"'),
    )

    def terms(self, asked: OrderBody) -> Terms:
        """Return the terms of the limit. Raises WrongTerms."""
        out, per = read_rate(asked, "limitPrice", "limitRate")
        least = -(-asked.amount * out // per)  # rounded up: never one unit below the limit
        return Terms(Trigger(when="at_least", out=out, per=per), BaseUnits(least))
