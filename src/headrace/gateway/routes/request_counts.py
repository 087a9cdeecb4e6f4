"""Every request counts for its address, until it has shown whose it is: then for that user instead."""

from typing import Final

from litestar.enums import ScopeType
from litestar.types import ASGIApp, Receive, Scope, Send

from headrace.gateway.door.doorkeeper import Doorkeeper
from headrace.gateway.door.request_rates import Asker, RequestRates
from headrace.gateway.problems import Refused
from headrace.gateway.routes.asgi_errors import address_of, refuse

PROBES: Final = frozenset({"/health/live", "/health/ready"})
"""Never refused: a busy server is no dead one."""

_COUNTED: Final = "counted_for"


class Counted:
    """Refuses what comes too fast before anything else is done for it: no credential is looked at.

    Users who share an address use none of its rate up, but for the requests that are beyond their own.
    """

    def __init__(self, app: ASGIApp, keeper: Doorkeeper) -> None:
        self._app, self._keeper = app, keeper

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == ScopeType.HTTP and scope["path"] not in PROBES:
            asker = Asker("address", address_of(scope, self._keeper.admission))
            try:
                self._keeper.rates.take(asker)
            except Refused as refused:
                await refuse(send, refused)
                return
            scope["state"][_COUNTED] = asker
        await self._app(scope, receive, send)


def count_for_user(scope: Scope, rates: RequestRates, user_id: str) -> None:
    """It is this user's request, and no longer its address'. Raises Refused (429) for one too many."""
    asker = Asker("user", user_id)
    rates.take(asker)
    discount(scope, rates)
    scope["state"][_COUNTED] = asker


def discount(scope: Scope, rates: RequestRates) -> None:
    """It counts for nobody: something else limits it."""
    asker = scope["state"].pop(_COUNTED, None)
    if asker is not None:
        rates.give_back(asker)
