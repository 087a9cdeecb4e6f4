"""The log of one topic: its position, and the messages that are kept."""

from collections import deque
from typing import Final

from headrace.bus import Lane
from headrace.model.events import Message, Position, TopicEpoch

MESSAGE_BYTES: Final = 200
"""Bytes that a kept message takes besides its body."""

_NOTHING: Final = deque[Message](maxlen=0)


class Log:
    """One topic in one epoch. `size` is the number of bytes of `messages`, `touched` the time of the last message.

    `wanted` are the lists that collect this topic's messages for the sinks. `active` is the mark of the view's lane
    while messages may be appended without a look-up; None once the view silenced the log or forgot it.
    """

    __slots__ = ("active", "lane", "messages", "offset", "size", "touched", "wanted", "within")

    def __init__(self, lane: Lane, topic: str, epoch: str, wanted: tuple[list[Message], ...]) -> None:
        self.lane, self.wanted = lane, wanted
        self.within = TopicEpoch(topic, epoch)
        self.offset = self.size = 0
        self.touched = float("-inf")
        self.messages = _NOTHING
        self.active: object = None

    @property
    def position(self) -> Position:
        """Return the position of the newest message."""
        return Position(self.within.epoch, self.offset)

    def wake(self, mark: object) -> None:
        """Keep messages from now on."""
        self.active, self.messages = mark, deque()

    def expire(self, cutoff_s: float) -> int:
        """Drop messages that came at or before `cutoff_s`; return how many bytes became free."""
        before, messages = self.size, self.messages
        while messages and messages[0].at_s <= cutoff_s:
            self.drop_oldest()
        return before - self.size

    def drop_oldest(self) -> int:
        """Drop the oldest message; return how many bytes became free."""
        freed = len(self.messages.popleft().body) + MESSAGE_BYTES
        self.size -= freed
        return freed

    def move_to(self, top: Position) -> None:
        """Continue after `top`, in its epoch, with no message kept. The log is silent."""
        self.within, self.offset = TopicEpoch(self.within.topic, top.epoch), top.offset

    def sleep(self) -> int:
        """Keep only the position, until `wake`; return how many bytes became free."""
        freed, self.size = self.size, 0
        self.active, self.messages = None, _NOTHING
        return freed
