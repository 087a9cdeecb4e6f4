"""Select what a subscription gets of a log: a filter, then conflation; the same for live and replayed messages."""

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
"""Messages that may wait for the end of a window; with one more the window ends early, and nothing is lost."""

V = TypeVar("V")


class Conflate(NamedTuple):
    """A wish: of the events with the same value under `key` only the latest, at most one each `every_ms`."""

    key: str
    every_ms: int


class _ConflateData(msgspec.Struct, forbid_unknown_fields=True):
    key: str
    every_ms: Annotated[int, msgspec.Meta(ge=EVERY_MS_MIN, le=EVERY_MS_MAX)]


_conflate_data = msgspec.json.Decoder(_ConflateData | None)


def parse_conflate(raw: bytes | msgspec.Raw) -> Conflate | None:
    """Read the `conflate` of a `subscribe`; None for `null`. Raise RequestError 107."""
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
    """Keeps the newest value of each key and every value without a key, in the order in which these came."""

    __slots__ = ("_kept", "_without_key")

    def __init__(self) -> None:
        self._kept: dict[str | int, V] = {}
        self._without_key = 0

    def __len__(self) -> int:
        return len(self._kept)

    def put(self, key: str | None, value: V) -> None:
        """Keep the value, in place of the former one of its key; a value without a key replaces nothing."""
        if key is None:
            self._without_key += 1
            self._kept[self._without_key] = value
        else:
            self._kept.pop(key, None)
            self._kept[key] = value

    def oldest(self) -> V:
        """Return the value that was kept for longest; there must be one."""
        return next(iter(self._kept.values()))

    def take(self) -> list[V]:
        """Return all values, in order, and keep none."""
        kept, self._kept = list(self._kept.values()), {}
        return kept


class Selection:
    """Lets events through that pass the filter; `promote`, `retract` and `gap` always.

    These three kinds are about events by slot or id: a client that has some of these events must hear of the change,
    and a client that has none can see so by itself. A memory of which events each filter let through would be needed to
    leave such messages out, and could not outlive the server.
    """

    def __init__(self, filter_: Filter | None, passes: Predicate | None, conflate: Conflate | None) -> None:
        """Select by `filter_`, of which `passes` is the compiled form, and by `conflate`."""
        self.filter, self.conflate = filter_, conflate
        self._passes = passes

    def passed(self, messages: Iterable[Message]) -> list[Message]:
        """Return the messages that pass the filter."""
        passes = self._passes
        if passes is None:
            return list(messages)
        return [message for message in messages if message.kind != "event" or passes(View(message.body))]

    def conflated(self, messages: list[Message]) -> list[Message]:
        """Return the messages conflated as if all had come at once."""
        if self.conflate is None:
            return messages
        latest: Latest[Message] = Latest()
        for message in messages:
            latest.put(self.key(message, View(message.body)), message)
        return latest.take()

    def key(self, message: Message, view: View) -> str | None:
        """Return the value by which the message is conflated; None for a message that is not."""
        if self.conflate is None or message.kind != "event":
            return None
        return view.text(self.conflate.key)
