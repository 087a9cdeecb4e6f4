"""A market order: executed at once, at the best quote."""

from headrace.order_types import Field, OrderBody, Terms


class Market:
    """Type without fields. Its orders wait for no rate."""

    fields: tuple[Field, ...] = ()

    def terms(self, asked: OrderBody) -> Terms:
        """Return terms without a trigger."""
        return Terms()
