"""A market order: at once, at the best quote."""

from headrace.order_types import Asked, Terms


class Market:
    """Waits for nothing."""

    fields: tuple[str, ...] = ()

    def terms(self, asked: Asked) -> Terms:
        return Terms()
