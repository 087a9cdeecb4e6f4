"""A limit order: waits until the market gives at least this much, and takes no less."""

from headrace.model.amounts import BaseUnits
from headrace.model.orders import Trigger
from headrace.order_types import Asked, Terms
from headrace.order_types.rates import read_rate


class Limit:
    """`limitPrice` or `limitRate`. The limit holds for the execution too: the chain refuses to fill below it."""

    fields = ("limitPrice", "limitRate")

    def terms(self, asked: Asked) -> Terms:
        out, per = read_rate(asked, *self.fields)
        least = -(-asked.amount * out // per)  # rounded up: never one unit below the limit
        return Terms(Trigger(when="at_least", out=out, per=per), BaseUnits(least))
