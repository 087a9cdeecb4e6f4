"""Who someone is and what they may: the permissions of a token, compiled once, asked for every topic. Pure."""

from collections.abc import Iterable
from typing import Final, NamedTuple, Self

OWN: Final = frozenset({"user", "orders"})
"""Kinds whose key is a user: implicit for that user, closed to everybody else whatever a token says."""

OF_AN_OWNER: Final = OWN | {"order"}
"""Kinds that no pattern opens. Whose an order is, its name does not tell: only the order itself does."""

EVERYTHING: Final = "*"
SUBJECT_LENGTH_MAX: Final = 128


class Permissions(NamedTuple):
    """Which topics may be read: all, whole kinds (`trades:*`), single ones (`trades:pump`, `slots`)."""

    everything: bool = False
    kinds: frozenset[str] = frozenset()
    topics: frozenset[str] = frozenset()

    @classmethod
    def of(cls, patterns: Iterable[str]) -> Self:
        """Compile a token's patterns. One that matches nothing is no error: a token may know more than this server."""
        patterns = frozenset(patterns)
        kinds = frozenset(pattern.removesuffix(":*") for pattern in patterns if pattern.endswith(":*"))
        return cls(EVERYTHING in patterns, kinds, patterns)

    def allow(self, topic: str) -> bool:
        """Return whether a topic that belongs to nobody may be read. The cost does not grow with the patterns."""
        kind, colon, _ = topic.partition(":")
        return self.everything or topic in self.topics or (bool(colon) and kind in self.kinds)


class Identity(NamedTuple):
    """What a credential proved. `expires_at_ms` is wall time, tolerance for other clocks included.

    `admin` may publish and look at the connections of all.
    """

    subject: str
    expires_at_ms: int
    permissions: Permissions = Permissions()
    admin: bool = False

    def may_read(self, topic: str) -> bool:
        """Return whether this subject may have `topic`, a name that `topics.parse` accepts.

        `order:<id>` is never allowed here: whoever can look at the order decides.
        """
        kind, _, key = topic.partition(":")
        if kind in OF_AN_OWNER:
            return kind in OWN and key == self.subject
        return self.permissions.allow(topic)


def is_subject(text: object) -> bool:
    """Return whether `text` can name a user: 1 to 128 printable ASCII characters."""
    return isinstance(text, str) and 0 < len(text) <= SUBJECT_LENGTH_MAX and text.isascii() and text.isprintable()
