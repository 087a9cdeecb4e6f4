"""Messages that an application sends to a topic, to users, or to everyone: once for each idempotency key."""

import hashlib
import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from http import HTTPStatus
from itertools import chain
from typing import Annotated, Any, Final, TypeAlias

import msgspec

from headrace.bus import Lane, Writer
from headrace.bus.lanes import lane_of
from headrace.fanout.user_topics import announcement
from headrace.gateway.problems import Refused, wrong
from headrace.inbox import Inbox, Letter
from headrace.model import topics
from headrace.model.application import missing_members
from headrace.model.errors import RequestError, TransientError
from headrace.model.events import Label, Position, Publication
from headrace.model.identity import SUBJECT_LENGTH_MAX
from headrace.model.states import state_key

DATA_BYTES_MAX: Final = 32_768
DATA_DEPTH_MAX: Final = 64
"""Maximum nesting depth of the data, so that no parser of the data, here or at a client, exhausts its stack."""

USERS_MAX: Final = 1_000
SERVERS_MAX: Final = 100

_Topic = Annotated[str, msgspec.Meta(min_length=1, max_length=topics.TOPIC_LENGTH_MAX)]
_UserId = Annotated[str, msgspec.Meta(pattern=r"\A[ -~]+\Z", max_length=SUBJECT_LENGTH_MAX)]
_Key = Annotated[str, msgspec.Meta(pattern=r"\A[!-~]+\Z", max_length=200)]


class Broadcast(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A message to send. `data` is a JSON object. If its `type` is known to Headrace, certain members are required.

    With `ack`, the message is repeated to users until they acknowledge it. With `all`, every client of every server
    receives the message; with `all` and `server_ids`, every client of these servers.
    """

    data: msgspec.Raw
    topic: _Topic | None = None
    user_ids: Annotated[list[_UserId], msgspec.Meta(max_length=USERS_MAX)] = []
    server_ids: Annotated[list[str], msgspec.Meta(max_length=SERVERS_MAX)] = []
    idempotency_key: _Key | None = None
    ack: bool = False
    all: bool = False


class BroadcastAnswer(msgspec.Struct, frozen=True):
    """The message's position on its topic (`all` for everyone), or in the log of the first user if no topic was given.

    `users` has the offset in each user's log. `duplicate` is set if the key was known, so that nothing was sent again.
    """

    status: str
    epoch: str
    offset: str
    users: dict[str, str]
    duplicate: bool


Announce: TypeAlias = Callable[[str, Broadcast, bytes], None]
"""Gets the event id of a broadcast that was sent, the broadcast, and its data as JSON on one line. Never waits."""


def announce_nothing(event_id: str, asked: Broadcast, data: bytes) -> None:
    """Do nothing: there is no channel."""


class Broadcasts:
    """Sends broadcasts. A message has the same `event_id` for all receivers, even when it is repeated."""

    def __init__(
        self,
        writers: Mapping[Lane, Writer],
        inbox: Inbox | None,
        server_id: str,
        servers: Callable[[], Collection[str]] = tuple,
        announce: Announce = announce_nothing,
    ) -> None:
        """Publish by `writers`. `servers` returns the names of all servers of the deployment.

        `announce` gets each broadcast that was sent, with its event id and its data.
        """
        self._announce = announce
        self._writers, self._inbox, self._server_id, self._servers = writers, inbox, server_id, servers

    async def send(self, asked: Broadcast) -> BroadcastAnswer:
        """Send one message. Raises Refused with all faults of the request."""
        data = self._check(asked)
        if asked.idempotency_key is not None:
            known = await self._known(asked.idempotency_key, _fingerprint(asked, data))
            if known is not None:
                return known
        event_id = _event_id(asked.idempotency_key)
        answer = await self._try_to_send(asked, data, event_id)
        self._announce(event_id, asked, data)
        return answer

    async def relay(self, asked: Broadcast, event_id: str) -> None:
        """Send the message of another program after the same checks. It is not announced. Raises Refused."""
        await self._try_to_send(asked, self._check(asked), event_id)

    async def _try_to_send(self, asked: Broadcast, data: bytes, event_id: str) -> BroadcastAnswer:
        try:
            return await self._send(asked, data, event_id)
        except TransientError as error:
            raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, "temporarily unavailable") from error

    async def _send(self, asked: Broadcast, data: bytes, event_id: str) -> BroadcastAnswer:
        place: Position | None = None
        if found := _topics(asked):
            body = b'"event_id":"%b","data":%b' % (event_id.encode(), data)
            key = state_key(found[0], msgspec.json.decode(data))
            label = None if key is None else Label(key, event_id, None, certain=True)
            place, *_ = await self._publish([Publication.on(topic, "event", body, label) for topic in found])
        letters = [Letter(user_id, event_id, data.decode(), asked.ack) for user_id in dict.fromkeys(asked.user_ids)]

        def compose(positions: Sequence[Position]) -> str:
            users = {letter.user_id: str(at.offset) for letter, at in zip(letters, positions, strict=True)}
            epoch, offset = place or positions[0]
            answer = BroadcastAnswer("ok", epoch, str(offset), users, duplicate=False)
            return msgspec.json.encode(answer).decode()

        if self._inbox is None:
            return msgspec.json.decode(compose([]), type=BroadcastAnswer)
        if not letters and asked.idempotency_key is None:
            return msgspec.json.decode(compose([]), type=BroadcastAnswer)
        positions, answer = await self._inbox.put(letters, asked.idempotency_key, compose)
        if letters:
            await self._publish([announcement(letter, at) for letter, at in zip(letters, positions, strict=True)])
        return msgspec.json.decode(answer, type=BroadcastAnswer)

    async def _publish(self, publications: Sequence[Publication]) -> Sequence[Position]:
        """Publish once, on the lane of the topics.

        Raises TransientError if it is unknown whether the bus accepted the messages.
        """
        writer = self._writers.get(lane_of(publications[0].topic))
        if writer is None:
            raise TransientError("another process publishes on this topic")
        return await writer.publish(writer.batch(publications, positions=True))

    async def _known(self, key: str, fingerprint: str) -> BroadcastAnswer | None:
        """Return the first answer for the key; None for a new key."""
        assert self._inbox is not None
        try:
            known = await self._inbox.begin(key, fingerprint)
        except RequestError as error:
            raise Refused(HTTPStatus.TOO_MANY_REQUESTS, error.message) from error
        except TransientError as error:
            raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, "temporarily unavailable") from error
        if known is None:
            return None
        if not known.same:
            raise _wrong({"idempotency_key": "was used for another message"})
        if known.answer is None:
            raise Refused(HTTPStatus.CONFLICT, "a broadcast with this idempotency key is being made")
        answer = msgspec.json.decode(known.answer, type=BroadcastAnswer)
        return msgspec.structs.replace(answer, duplicate=True)

    def _check(self, asked: Broadcast) -> bytes:
        """Return the data as JSON on one line. Raises Refused 422 with every fault found."""
        faults: dict[str, str] = {}
        if asked.all:
            faults |= _faults_for_all(asked)
        elif asked.topic is None and not asked.user_ids:
            faults["topic"] = "neither a topic, user_ids nor all are given"
        elif asked.topic is not None and not _may_be_published_on(asked.topic):
            faults["topic"] = "no topic that an application may publish on"
        servers = {self._server_id, *(self._servers() if asked.all else ())}
        if not servers.issuperset(asked.server_ids):
            faults["server_ids"] = "names a server that is not there"
        if self._inbox is None and (asked.user_ids or asked.idempotency_key is not None):
            raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, "this server keeps nothing for users")
        try:
            found = msgspec.json.decode(asked.data)
            data = msgspec.json.format(bytes(asked.data), indent=-1)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            found, data = None, b""
        if not isinstance(found, dict):
            faults["data"] = "is not a JSON object"
        elif len(data) > DATA_BYTES_MAX:
            faults["data"] = f"is longer than {DATA_BYTES_MAX} bytes"
        elif _is_deep(found):
            faults["data"] = f"is deeper than {DATA_DEPTH_MAX} levels"
        else:
            faults |= {f"data.{member}": f"is missing in a {found['type']}" for member in missing_members(found)}
        if faults:
            raise _wrong(faults)
        return data


def _is_deep(data: Any) -> bool:
    """Return whether the data has more than DATA_DEPTH_MAX levels of objects and lists."""
    level = [data]
    for _ in range(DATA_DEPTH_MAX + 1):
        lists = [one for one in level if isinstance(one, list)]
        lists += [list(one.values()) for one in level if isinstance(one, dict)]
        if not lists:
            return False
        level = list(chain.from_iterable(lists))
    return True


def _topics(asked: Broadcast) -> Sequence[str]:
    """Return the topics to publish on; none for a message to users only."""
    if asked.all:
        return [topics.SERVER_PREFIX + server_id for server_id in dict.fromkeys(asked.server_ids)] or [topics.ALL]
    return [] if asked.topic is None else [asked.topic]


def _faults_for_all(asked: Broadcast) -> dict[str, str]:
    """Return the members that contradict `all`."""
    faults: dict[str, str] = {}
    if asked.topic is not None:
        faults["topic"] = "is given beside all"
    if asked.user_ids:
        faults["user_ids"] = "are given beside all"
    if asked.ack:
        faults["ack"] = "a message to all is not acknowledged"
    return faults


def _may_be_published_on(name: str) -> bool:
    try:
        return topics.parse(name).kind in topics.APPLICATION
    except RequestError:
        return False


def _wrong(errors: Mapping[str, str]) -> Refused:
    return Refused(
        HTTPStatus.UNPROCESSABLE_ENTITY, "the message can't be sent", errors=[wrong(*each) for each in errors.items()]
    )


def _event_id(key: str | None) -> str:
    return f"app:{secrets.token_hex(12) if key is None else hashlib.sha256(key.encode()).hexdigest()[:24]}"


def _fingerprint(asked: Broadcast, data: bytes) -> str:
    parts: list[object] = [asked.topic, data.decode(), asked.user_ids, asked.server_ids, asked.ack]
    parts += ["all"] if asked.all else []
    return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()
