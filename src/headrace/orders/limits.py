"""The most that one order may give of a token: for everyone, or for single users. Pure."""

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Final

from headrace.model.errors import ConfigError
from headrace.model.identity import is_subject
from headrace.model.orders import OrderRefused, OrderRequest
from headrace.orders.requests import find_token

EVERYONE: Final = ""
_EXPECTED: Final = "TOKEN=BASE_UNITS for everyone, or USER:TOKEN=BASE_UNITS for one user"


class AmountLimits:
    """A user's own limit takes the place of the one for everyone, whether it is more or less."""

    def __init__(self, most: Mapping[tuple[str, str], int]) -> None:
        self._most = most

    @classmethod
    def parse(cls, texts: Iterable[str]) -> "AmountLimits":
        """`SOL=5000000000`, `ann:USDC=1000000`. What stands before the last colon is
        the user, colons of its own included. Raises ConfigError that names the one that is wrong."""
        most: dict[tuple[str, str], int] = {}
        for text in texts:
            owner, _, limit = text.strip().rpartition(":")
            name, _, units = limit.partition("=")
            token = find_token(name)
            if token is None or not (units.isascii() and units.isdigit()) or (owner and not is_subject(owner)):
                raise ConfigError("ORDER_AMOUNT_LIMITS", text, _EXPECTED)
            most[owner or EVERYONE, token.mint] = int(units)
        return cls(most)

    def check(self, request: OrderRequest, name: str) -> None:
        """Raises OrderRefused 400 for an order of more than its user may give of this token. `name` is the field in
        which the client gave the amount."""
        mint = request.token_in.mint
        most = self._most.get((request.user_id, mint), self._most.get((EVERYONE, mint)))
        if most is not None and request.amount > most:
            fields = {name: f"is more than {most} base units"}
            message = "the order is larger than is allowed"
            raise OrderRefused(HTTPStatus.BAD_REQUEST, "invalid_order", message, fields=fields)
