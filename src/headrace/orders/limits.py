"""Limits on new orders: amount per token and user, slippage, expiry, and orders per minute. Pure."""

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from decimal import Decimal
from http import HTTPStatus
from typing import Any, Final

from headrace.model.errors import ConfigError
from headrace.model.identity import is_subject
from headrace.model.orders import OrderRefused, OrderRequest
from headrace.orders.requests import find_token, invalid
from headrace.protocol.session import TokenBucket

USERS_MAX: Final = 10_000
SLIPPAGE_MAX: Final = Decimal("0.5")
"""Maximum slippage, as a fraction.

Some clients send a percentage as `slippage`. Read as a fraction, 1 would allow any loss.
"""
EVERYONE: Final = ""
_EXPECTED: Final = "TOKEN=BASE_UNITS for everyone, or USER:TOKEN=BASE_UNITS for one user"


class AmountLimits:
    """Maximum base units of a token that one order may give. A limit for a user replaces the limit for everyone."""

    def __init__(self, most: Mapping[tuple[str, str], int]) -> None:
        self._most = most

    @classmethod
    def parse(cls, texts: Iterable[str]) -> "AmountLimits":
        """Parse limits such as `SOL=5000000000` and `ann:USDC=1000000`.

        The user is the text before the last colon, and may contain colons. Raises ConfigError naming the first wrong
        limit.
        """
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
        """Raise OrderRefused 400 if the amount exceeds the user's limit for its token.

        `name` is the name of the amount's field.
        """
        mint = request.token_in.mint
        most = self._most.get((request.user_id, mint), self._most.get((EVERYONE, mint)))
        if most is not None and request.amount > most:
            fields = {name: f"is more than {most} base units"}
            message = "the order is larger than is allowed"
            raise OrderRefused(HTTPStatus.BAD_REQUEST, "invalid_order", message, fields=fields)


class OrderRates:
    """Limit each user to a number of orders per minute.

    At most `USERS_MAX` users are kept. Above that, the user whose last order is oldest is forgotten.
    """

    def __init__(self, per_minute: int) -> None:
        self._per_minute = per_minute
        self._users: OrderedDict[str, TokenBucket] = OrderedDict()

    def take(self, user_id: str, now_s: float) -> None:
        """Count an order of the user.

        Raises OrderRefused 429 if the rate is exceeded; a rate of 0 allows any number.
        """
        if self._per_minute == 0:
            return
        now_min = now_s / 60  # the bucket works in any unit of time; this one counts minutes
        bucket = self._users.get(user_id)
        if bucket is None:
            bucket = self._users[user_id] = TokenBucket(self._per_minute, now_min)
            if len(self._users) > USERS_MAX:
                self._users.popitem(last=False)
        self._users.move_to_end(user_id)
        if wait_min := bucket.take(now_min):
            raise OrderRefused(
                HTTPStatus.TOO_MANY_REQUESTS,
                "rate_limited",
                f"more than {self._per_minute} orders a minute",
                retry_after_ms=max(1, round(wait_min * 60_000)),
            )


def check_amount(request: OrderRequest, name: str, amount_max: int) -> None:
    """Raise OrderRefused 400 if the amount exceeds the limit for all orders.

    `name` is the name of the amount's field.
    """
    if request.amount > amount_max:
        raise invalid("the order can't be taken as it is", {name: f"is more than {amount_max} base units"})


def check_time(request: OrderRequest, now_ms: int) -> None:
    """Raise OrderRefused 400 for an order that has already expired."""
    if request.expires_at_ms is not None and request.expires_at_ms <= now_ms:
        fields = {"expiresAt": "is in the past (milliseconds since 1970 are expected)"}
        raise invalid("the order can't be taken any more", fields)


def check_fraction(body: dict[str, Any]) -> None:
    """Raise OrderRefused 400 for a `slippage` that is probably meant as a percentage. `slippageBps` may have any value.

    The check is not part of `read_request`, because an order that an earlier version accepted with such a slippage must
    still be found by its key.
    """
    fraction = body.get("slippage")
    if isinstance(fraction, int | Decimal) and fraction > SLIPPAGE_MAX:
        reason = f"is a fraction, at most {SLIPPAGE_MAX} (0.01 is 1 %); if more is meant, give slippageBps"
        raise invalid("the order can't be taken as it is", {"slippage": reason})
