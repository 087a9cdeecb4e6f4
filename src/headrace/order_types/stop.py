"""A stop order: waits until the market gives no more than the stop, then accepts what the market gives."""

from headrace.model.orders import Trigger
from headrace.order_types import Field, OrderBody, Terms
from headrace.order_types.rates import read_rate


class Stop:
    """`stopPrice` or `stopRate`. Once triggered, the order is a market order: slippage is measured from the quote."""

    fields = (
        Field("stopPrice", "price", "wait until the price is this, or less", option="stop"),
        Field("stopRate", "rate", 'the stop in base units, "out/in"'),
    )

    def terms(self, asked: OrderBody) -> Terms:
        """Return the terms of the stop. Raises WrongTerms."""
        out, per = read_rate(asked, "stopPrice", "stopRate")
        return Terms(Trigger(when="at_most", out=out, per=per))
