"""The topic of an order is its owner's: whose it is, is asked of the store, and nobody waits for that but who asks."""

from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import Final

from headrace.fanout.groups import Client
from headrace.fanout.replays import INTERNAL
from headrace.gateway.auth.authenticator import RETRY_AFTER_S
from headrace.model.errors import RequestError
from headrace.model.orders import OrderRefused
from headrace.model.topics import ORDER_PREFIX
from headrace.orders.intake import Intake
from headrace.protocol import frames
from headrace.protocol.codes import ErrorCode
from headrace.protocol.credential_state import DENIED
from headrace.protocol.session import History, OwnerOnly, Subscribe
from headrace.runtime.once import start_once
from headrace.runtime.supervise import Supervisor

AT_ONCE_MAX: Final = 1000
"""Checks of all connections that wait for the store; each connection is bounded by its topics and its rate besides."""

AWAY: Final = RequestError(
    ErrorCode.UNAVAILABLE, "temporarily unavailable", temporary=True, retry_after_ms=int(RETRY_AFTER_S * 1000)
)


class OrderTopics:
    """Tells owners from others. An order that does not exist and one of somebody else are refused alike: denied."""

    def __init__(self, intake: Intake, supervisor: Supervisor) -> None:
        self._intake, self._supervisor = intake, supervisor
        self._checking = 0

    async def check(self, topic: str, user_id: str) -> None:
        """Raises RequestError 103 unless the order is this user's, 108 while that can't be told."""
        if self._checking >= AT_ONCE_MAX:
            raise AWAY
        self._checking += 1
        try:
            await self._look(topic, user_id)
        finally:
            self._checking -= 1

    def start(self, topic: str, user_id: str, decided: Callable[[RequestError | None], None]) -> None:
        """Check in a task, then call `decided` with the refusal, or with None for the owner."""
        if self._checking >= AT_ONCE_MAX:
            decided(AWAY)  # not even a task
            return
        self._checking += 1
        work = partial(self._decide, topic, user_id, decided)
        task = start_once(self._supervisor, "gateway", "owner", work, partial(decided, INTERNAL))
        task.add_done_callback(self._done)

    async def _decide(self, topic: str, user_id: str, decided: Callable[[RequestError | None], None]) -> None:
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


class Asked:
    """What one client asked of topics of orders, until it is known whose they are."""

    def __init__(self, topics: OrderTopics, client: Client, perform: Callable[[Subscribe | History], None]) -> None:
        self._topics, self._client, self._perform = topics, client, perform
        self._subscribes: dict[str, Subscribe] = {}

    def ask(self, wanted: OwnerOnly) -> None:
        """Perform it once it is known to be the owner's; else answer why not."""
        then = wanted.then
        if isinstance(then, Subscribe):
            self._subscribes[then.topic] = then
        self._topics.start(then.topic, wanted.user_id, partial(self._decided, wanted))

    def withdraw(self, topic: str) -> Subscribe | None:
        """The client no longer wants the topic; what it had asked, if that was not decided yet."""
        return self._subscribes.pop(topic, None)

    def _decided(self, wanted: OwnerOnly, failure: RequestError | None) -> None:
        then = wanted.then
        if isinstance(then, Subscribe):
            if self._subscribes.get(then.topic) is not then:
                return  # withdrawn, and answered then
            del self._subscribes[then.topic]
        if not self._client.open:
            return
        if failure is None:
            self._perform(then)
            return
        if isinstance(then, Subscribe):
            self._client.not_subscribed(then.topic)
        self._client.send(frames.error(failure, then.request_id, then.topic if then.request_id is None else None))
