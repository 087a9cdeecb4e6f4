"""Selects the messages of a log for a subscription: applies the filter, then conflation.

Live and replayed messages are treated alike.
"""

from collections.abc import Iterable
from typing import Annotated, Final, Generic, NamedTuple, TypeVar

import msgspec

from headrace.model.errors import RequestError
from headrace.model.events import Message
from headrace.protocol.codes import ErrorCode
from headrace.protocol.filters import Filter, checked_key
from headrace.protocol.predicates import Predicate, View

EVERY_MS_MIN: Final = 10
EVERY_MS_MAX: Final = 60_000
KEYS_MAX: Final = 4096
"""Maximum number of messages that may wait for the end of a window.

One more ends the window early; no message is lost.
"""

V = TypeVar("V")


class Conflate(NamedTuple):
    """The option `conflate`: of events with equal values under `key`, send only the latest, once every `every_ms`."""

    key: str
    every_ms: int


class _ConflateData(msgspec.Struct, forbid_unknown_fields=True):
    key: str
    every_ms: Annotated[int, msgspec.Meta(ge=EVERY_MS_MIN, le=EVERY_MS_MAX)]


_conflate_data = msgspec.json.Decoder(_ConflateData | None)


def parse_conflate(raw: bytes | msgspec.Raw) -> Conflate | None:
    """Parse the `conflate` of a `subscribe`; None for `null`. Raises RequestError 107."""
    try:
        data = _conflate_data.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        expected = f"a key, and every_ms from {EVERY_MS_MIN} to {EVERY_MS_MAX}"
        raise RequestError(ErrorCode.BAD_REQUEST, f"conflate: expected {expected}") from error
    if data is None:
        return None
    key = checked_key(data.key)
    if key is None:
        raise RequestError(ErrorCode.BAD_REQUEST, "conflate: key is no field's name")
    return Conflate(key, data.every_ms)


class Latest(Generic[V]):
    """The newest value of each key, and every value without a key, in order of arrival."""

    __slots__ = ("_kept", "_without_key")

    def __init__(self) -> None:
        self._kept: dict[str | int, V] = {}
        self._without_key = 0

    def __len__(self) -> int:
        return len(self._kept)

    def put(self, key: str | None, value: V) -> None:
        """Keep the value in place of the previous value of its key. A value without a key replaces nothing."""
        if key is None:
            self._without_key += 1
            self._kept[self._without_key] = value
        else:
            self._kept.pop(key, None)
            self._kept[key] = value

    def oldest(self) -> V:
        """Return the value that has been kept longest. There must be a value."""
        return next(iter(self._kept.values()))

    def take(self) -> list[V]:
        """Return all values in order, and remove them."""
        kept, self._kept = list(self._kept.values()), {}
        return kept


class Selection:
    """Selects events that pass the filter, and every `promote`, `retract` and `gap`.

    These three kinds refer to events by slot or id. A client that has such an event must learn of the change, and a
    client that has none can see that the message does not concern it. To leave such messages out, the server would have
    to remember which events each filter passed, even after a restart.
    """

    def __init__(self, filter_: Filter | None, passes: Predicate | None, conflate: Conflate | None) -> None:
        """Select by `filter_`, whose compiled form is `passes`, and by `conflate`."""
        self.filter, self.conflate = filter_, conflate
        self._passes = passes

    def passed(self, messages: Iterable[Message]) -> list[Message]:
        """Return the messages that pass the filter."""
        passes = self._passes
        if passes is None:
            return list(messages)
        return [message for message in messages if message.kind != "event" or passes(View(message.body))]

    def conflated(self, messages: list[Message]) -> list[Message]:
        """Return the messages, conflated as if all had arrived at the same time."""
        if self.conflate is None:
            return messages
        latest: Latest[Message] = Latest()
        for message in messages:
            latest.put(self.key(message, View(message.body)), message)
        return latest.take()

    def key(self, message: Message, view: View) -> str | None:
        """Return the value by which the message is conflated; None if the message is not conflated."""
        if self.conflate is None or message.kind != "event":
            return None
        return view.text(self.conflate.key)
