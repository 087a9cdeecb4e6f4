"""Every request counts for its address, until it has shown whose it is: then for that user instead."""

from typing import Final

from litestar.enums import ScopeType
from litestar.types import ASGIApp, Receive, Scope, Send

from headrace.gateway.limits import Doorkeeper
from headrace.gateway.problems import Refused
from headrace.gateway.request_rates import Asker, RequestRates
from headrace.gateway.routes.bare import address_of, refuse

PROBES: Final = frozenset({"/health/live", "/health/ready"})
"""Never refused: a busy server is no dead one."""

_COUNTED: Final = "counted_for"


class Counted:
    """Refuses what comes too fast before anything else is done for it, even for a credential that it may bear.

    So an address that has used up its rate gets no credential checked; but users who share it use none of it up.
    """

    def __init__(self, app: ASGIApp, keeper: Doorkeeper) -> None:
        self._app, self._keeper = app, keeper

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == ScopeType.HTTP and scope["path"] not in PROBES:
            try:
                _count(scope, self._keeper.rates, Asker("address", address_of(scope, self._keeper.admission)))
            except Refused as refused:
                await refuse(send, refused)
                return
        await self._app(scope, receive, send)


def count_for_user(scope: Scope, rates: RequestRates, user_id: str) -> None:
    """It is this user's request, and no longer its address'. Raises Refused (429) for one too many."""
    discount(scope, rates)
    _count(scope, rates, Asker("user", user_id))


def discount(scope: Scope, rates: RequestRates) -> None:
    """It counts for nobody: something else limits it."""
    asker = scope["state"].pop(_COUNTED, None)
    if asker is not None:
        rates.give_back(asker)


def _count(scope: Scope, rates: RequestRates, asker: Asker) -> None:
    rates.take(asker)
    scope["state"][_COUNTED] = asker
