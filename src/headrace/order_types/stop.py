"""A stop order: waits until the market gives no more than this, then takes what the market gives."""

from headrace.model.orders import Trigger
from headrace.order_types import Asked, Terms
from headrace.order_types.rates import read_rate


class Stop:
    """`stopPrice` or `stopRate`. Once triggered it is a market order: slippage counts from the quote."""

    fields = ("stopPrice", "stopRate")

    def terms(self, asked: Asked) -> Terms:
        out, per = read_rate(asked, *self.fields)
        return Terms(Trigger(when="at_most", out=out, per=per))
