"""What of a topic's log a subscription gets: the same for what is live and for what is read again."""

from collections.abc import Iterable

from headrace.model.events import Message
from headrace.protocol.conflation import Conflate, Latest
from headrace.protocol.filters import Filter
from headrace.protocol.predicates import Predicate, View


class Sieve:
    """Lets events through that pass the filter; `promote`, `retract` and `gap` always.

    These three are about events by slot or id: a client that has some of them must hear of it, and one that has none
    can tell so by itself. To keep in mind which of them each filter let through could not outlive the server.
    """

    def __init__(self, filter_: Filter | None, passes: Predicate | None, conflate: Conflate | None) -> None:
        """`passes` is the filter, compiled."""
        self.filter, self.conflate = filter_, conflate
        self._passes = passes

    def passed(self, messages: Iterable[Message]) -> list[Message]:
        """Those that pass the filter."""
        passes = self._passes
        if passes is None:
            return list(messages)
        return [message for message in messages if message.kind != "event" or passes(View(message.body))]

    def thinned(self, messages: list[Message]) -> list[Message]:
        """Conflated as if they all came at once."""
        if self.conflate is None:
            return messages
        latest: Latest[Message] = Latest()
        for message in messages:
            latest.put(self.key(message, View(message.body)), message)
        return latest.take()

    def key(self, message: Message, view: View) -> str | None:
        """What the message is conflated by; None: it is not."""
        if self.conflate is None or message.kind != "event":
            return None
        return view.text(self.conflate.key)
