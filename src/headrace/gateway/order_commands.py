"""Orders and quotes over `/ws`: the same commands as over HTTP, on a connection that is already open."""

from functools import partial
from http import HTTPStatus
from typing import Any, Final

import structlog

from headrace.fanout.client import Client
from headrace.model.errors import InvariantError, RequestError
from headrace.model.orders import OrderRefused
from headrace.orders.intake import Intake, as_accepted
from headrace.orders.requests import read_json
from headrace.protocol import frames
from headrace.protocol.codes import INTERNAL, ErrorCode
from headrace.protocol.orders import offer_view, order_view
from headrace.protocol.session import OrderCommand
from headrace.runtime.supervise import Supervisor

AT_ONCE_MAX: Final = 10_000
"""Maximum number of commands, over all connections, that may wait for the store. A rate limits each connection too."""

QUOTES_AT_ONCE_MAX: Final = 256
"""Maximum number of `quote` commands, over all connections, that may wait for venues."""

QUOTE: Final = "quote"
ASKED: Final = ("inputMint", "outputMint", "amount", "slippageBps", "swapMode")

_log = structlog.get_logger("gateway")


class OrderCommands:
    """Performs `order.execute`, `order.cancel`, `order.get` and `quote`; answers each command once it has finished.

    A user's connection acts only for this user, and can't place, read or cancel orders of other users.
    """

    def __init__(self, intake: Intake, supervisor: Supervisor) -> None:
        self._intake, self._supervisor = intake, supervisor
        self._running = {"order": 0, QUOTE: 0}

    def perform(self, client: Client, command: OrderCommand, user_id: str | None) -> None:
        """Start a command. Commands of one connection reach the store in the order in which they arrived."""
        kind, most = (QUOTE, QUOTES_AT_ONCE_MAX) if command.verb == QUOTE else ("order", AT_ONCE_MAX)
        if self._running[kind] >= most:
            failure = RequestError(ErrorCode.RATE_LIMITED, f"too many {kind}s at once", temporary=True)
            client.send(frames.error(failure, command.request_id))
            return
        self._running[kind] += 1
        failed = partial(client.send, frames.error(INTERNAL, command.request_id))
        work = partial(self._perform, client, command, user_id)
        task = self._supervisor.start("orders", command.verb, work, on_failure=failed)
        task.add_done_callback(partial(self._done, kind))

    def _done(self, kind: str, _: object) -> None:
        self._running[kind] -= 1

    async def _perform(self, client: Client, command: OrderCommand, user_id: str | None) -> None:
        try:
            answer = await self._answer(command, user_id)
        except OrderRefused as refused:
            answer = frames.order_error(refused, command.request_id)
        except InvariantError as error:  # a person must look; until then only this order is affected
            _log.error("order_unreadable", verb=command.verb, error=str(error), exc_info=error)
            answer = frames.error(INTERNAL, command.request_id)
        if client.open:
            client.send(answer)

    async def _answer(self, command: OrderCommand, user_id: str | None) -> bytes:
        data = read_json(command.data)
        if not isinstance(data, dict):
            raise OrderRefused(HTTPStatus.BAD_REQUEST, "invalid_body", "expected a JSON object")
        if command.verb == "execute":
            accepted = await self._intake.execute(of_user(data, user_id), _text(data, "idempotencyKey"))
            view = order_view(as_accepted(accepted.order))
            return frames.order(view, command.request_id, replayed=accepted.replayed)
        if command.verb == QUOTE:
            asked = {name: data.get(name) for name in ASKED}
            return frames.quote(offer_view(*await self._intake.offer(asked)), command.request_id)
        order_id = _text(data, "orderId")
        if order_id is None:
            raise _wrong("orderId", "is missing")
        if command.verb == "cancel":
            order, requested = await self._intake.cancel(order_id, user_id=user_id)
            return frames.order(order_view(order), command.request_id, requested=requested)
        return frames.order(order_view(await self._intake.get(order_id, user_id=user_id)), command.request_id)


def of_user(data: dict[str, Any], user_id: str | None) -> dict[str, Any]:
    """Return the body with this user as its owner. If the user is None, return the body unchanged.

    Raises OrderRefused 403 for a body that names another user.
    """
    if user_id is None:
        return data
    if data.get("userId", user_id) != user_id:
        fields = {"userId": "is not who you are"}
        raise OrderRefused(HTTPStatus.FORBIDDEN, "not_your_user", "the order is for another user", fields=fields)
    return {**data, "userId": user_id}


def _text(data: dict[str, Any], name: str) -> str | None:
    value = data.get(name)
    if value is not None and not isinstance(value, str):
        raise _wrong(name, "is not text")
    return value


def _wrong(name: str, fault: str) -> OrderRefused:
    return OrderRefused(HTTPStatus.BAD_REQUEST, "invalid_body", f"{name} {fault}", fields={name: fault})
