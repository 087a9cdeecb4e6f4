"""Checks that an order's topic is read only by the order's owner. Only the command waits while the store is asked."""

from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import Final, Protocol

from headrace.gateway.auth.authenticator import RETRY_AFTER_S
from headrace.model.errors import RequestError
from headrace.model.orders import OrderRefused
from headrace.model.topics import ORDER_PREFIX
from headrace.orders.intake import Intake
from headrace.protocol import frames
from headrace.protocol.codes import INTERNAL, ErrorCode
from headrace.protocol.credential_state import DENIED
from headrace.protocol.session import History, OwnerOnly, Subscribe
from headrace.runtime.supervise import Supervisor

AT_ONCE_MAX: Final = 1000
"""Maximum number of checks, over all connections, that wait for the store.

Topics and a rate limit each connection too.
"""

AWAY: Final = RequestError(
    ErrorCode.UNAVAILABLE, "temporarily unavailable", temporary=True, retry_after_ms=int(RETRY_AFTER_S * 1000)
)

Decide = Callable[[RequestError | None], None]


class OrderTopics:
    """Checks who owns an order.

    An order that does not exist and another user's order are both refused with "denied".
    """

    def __init__(self, intake: Intake, supervisor: Supervisor) -> None:
        self._intake, self._supervisor = intake, supervisor
        self._checking = 0

    async def check(self, topic: str, user_id: str) -> None:
        """Raise RequestError 103 if the order is not this user's, and 108 while the owner can't be read."""
        if self._checking >= AT_ONCE_MAX:
            raise AWAY
        self._checking += 1
        try:
            await self._look(topic, user_id)
        finally:
            self._checking -= 1

    def start(self, topic: str, user_id: str, decided: Decide) -> None:
        """Check in a task, then call `decided` with the refusal, or with None if the user is the owner."""
        if self._checking >= AT_ONCE_MAX:
            decided(AWAY)  # without a task
            return
        self._checking += 1
        work = partial(self._decide, topic, user_id, decided)
        task = self._supervisor.start("gateway", "owner", work, on_failure=partial(decided, INTERNAL))
        task.add_done_callback(self._done)

    async def _decide(self, topic: str, user_id: str, decided: Decide) -> None:
        try:
            await self._look(topic, user_id)
        except RequestError as failure:
            decided(failure)
        else:
            decided(None)

    async def _look(self, topic: str, user_id: str) -> None:
        try:
            await self._intake.get(topic.removeprefix(ORDER_PREFIX), user_id=user_id)
        except OrderRefused as refused:
            raise (DENIED if refused.status == HTTPStatus.NOT_FOUND else AWAY) from None

    def _done(self, _: object) -> None:
        self._checking -= 1


class Asking(Protocol):
    """Client that asked for an order's topic."""

    open: bool

    def send(self, payload: bytes) -> None:
        """Write one frame."""

    def not_subscribed(self, topic: str) -> None:
        """Allow the client to subscribe to the topic again."""

    def perform_for_owner(self, action: Subscribe | History) -> None:
        """Perform the command that the client asked for."""


class OwnerChecks:
    """Commands of one client on topics of orders whose owner is not known yet."""

    def __init__(self, topics: OrderTopics) -> None:
        self._topics = topics
        self._subscribes: dict[str, Subscribe] = {}

    def ask(self, client: Asking, wanted: OwnerOnly) -> None:
        """Perform the client's command once the owner is checked. If the command is refused, answer with the reason."""
        then = wanted.then
        if isinstance(then, Subscribe):
            self._subscribes[then.topic] = then
        self._topics.start(then.topic, wanted.user_id, partial(self._decided, client, then))

    def withdraw(self, topic: str) -> Subscribe | None:
        """Drop the undecided subscription to a topic, and return its command; None if there is none."""
        return self._subscribes.pop(topic, None)

    def _decided(self, client: Asking, then: Subscribe | History, failure: RequestError | None) -> None:
        if isinstance(then, Subscribe):
            if self._subscribes.get(then.topic) is not then:
                return  # withdrawn, and answered at that time
            del self._subscribes[then.topic]
        if not client.open:
            return
        if failure is None:
            client.perform_for_owner(then)
            return
        if isinstance(then, Subscribe):
            client.not_subscribed(then.topic)
        client.send(frames.error(failure, then.request_id, then.topic if then.request_id is None else None))
