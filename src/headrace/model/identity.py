"""Identities and their permissions: compiled once from a JSON Web Token, checked for every topic. Pure."""

from collections.abc import Iterable
from typing import Final, NamedTuple, Self

OWN: Final = frozenset({"user", "orders"})
"""Kinds of topics whose key is a user. That user may always read them. No JSON Web Token opens them to other users."""

OF_AN_OWNER: Final = OWN | {"order"}
"""Kinds that no pattern opens. The name `order:<id>` does not name the order's owner: only the stored order does."""

FOR_EVERYONE: Final = "all"
"""The topic that every connection gets without a subscription, so that every subject may read it."""

EVERYTHING: Final = "*"
SUBJECT_LENGTH_MAX: Final = 128


class Permissions(NamedTuple):
    """Topics that may be read: all topics, whole kinds (`trades:*`), and single topics (`trades:pump`, `slots`)."""

    everything: bool = False
    kinds: frozenset[str] = frozenset()
    topics: frozenset[str] = frozenset()

    @classmethod
    def of(cls, patterns: Iterable[str]) -> Self:
        """Compile the patterns of a JSON Web Token.

        A pattern that matches no topic is not an error: the issuer may know topics that this server does not have.
        """
        patterns = frozenset(patterns)
        kinds = frozenset(pattern.removesuffix(":*") for pattern in patterns if pattern.endswith(":*"))
        return cls(EVERYTHING in patterns, kinds, patterns)

    def allow(self, topic: str) -> bool:
        """Return whether a topic without an owner may be read. The cost does not grow with the number of patterns."""
        kind, colon, _ = topic.partition(":")
        return self.everything or topic in self.topics or (bool(colon) and kind in self.kinds)


class Identity(NamedTuple):
    """The claims that a credential proved.

    `expires_at_ms` is wall time and includes the tolerance for clock differences.
    `admin` may publish, and may list the connections of all users.
    """

    subject: str
    expires_at_ms: int
    permissions: Permissions = Permissions()
    admin: bool = False

    def may_read(self, topic: str) -> bool:
        """Return whether this subject may read `topic`, which must be a name that `topics.parse` accepts.

        The answer for `order:<id>` is always False: the caller must look up the order's owner.
        """
        if topic == FOR_EVERYONE:
            return True
        kind, _, key = topic.partition(":")
        if kind in OF_AN_OWNER:
            return kind in OWN and key == self.subject
        return self.permissions.allow(topic)


def is_subject(text: object) -> bool:
    """Return whether `text` can name a user: 1 to 128 printable ASCII characters."""
    return isinstance(text, str) and 0 < len(text) <= SUBJECT_LENGTH_MAX and text.isascii() and text.isprintable()
