"""Accounts by key, in the versions of the slots that a fork may still take back. Pure."""

from collections.abc import Collection, Iterable
from typing import Final

from headrace.model.facts import Confirmed, Dead, Decision, Finalized
from headrace.programs.quoting import Account

VERSIONS_MAX: Final = 64
"""Maximum number of versions kept of one account. If a fork takes back all of them, the account is forgotten."""
SLOTS_MAX: Final = 1_024
"""Maximum number of slots that may still be decided; a decision about an older slot has no effect."""


class Known:
    """Knowledge of one account: its content at the end of each slot from `first` to `upto`.

    `versions` are (slot, content), oldest first; content None: the account does not exist. `upto` is `first - 1` while
    the slot of the only version may still change the account.
    """

    __slots__ = ("upto", "versions")

    def __init__(self, slot: int, content: Account | None, upto: int) -> None:
        self.versions: list[tuple[int, Account | None]] = [(slot, content)]
        self.upto = upto

    @property
    def first(self) -> int:
        """The first slot at whose end the content is known."""
        return self.versions[0][0]

    @property
    def newest(self) -> Account | None:
        """The newest content."""
        return self.versions[-1][1]

    def at(self, slot: int) -> Account | None:
        """Return the content at the end of a slot from `first` on."""
        return next(content for version, content in reversed(self.versions) if version <= slot)


class AccountStates:
    """Contents of accounts, as a node answered (`read`) and as a stream brought them (`changed`).

    `extend` records up to which slot the stream surely brought all changes. Without that, an account is known only at
    the slot of its answer.
    """

    def __init__(self) -> None:
        self._known: dict[str, Known] = {}
        self._keys: dict[int, set[str]] = {}  # slot that a fork may take back → accounts with a version of it
        self.size = 0
        """Bytes of all versions."""

    def __len__(self) -> int:
        return len(self._known)

    def get(self, key: str) -> Known | None:
        """Return what is known of an account."""
        return self._known.get(key)

    def read(self, key: str, slot: int, content: Account | None) -> None:
        """Take a node's answer as of the end of `slot`. An answer that is older than what is known changes nothing."""
        known = self._known.get(key)
        if known is None:
            self._put(key, Known(slot, content, slot))
        elif slot > known.upto:
            later = [version for version in known.versions if version[0] > slot]
            self._replace(key, known, [(slot, content), *later])
            known.upto = slot
        else:
            return
        self._note(slot, key)

    def changed(self, key: str, slot: int, content: Account, *, certain: bool) -> None:
        """Take a change in `slot`; a later change in the same slot replaces it. `certain`: no fork takes it back."""
        known = self._known.get(key)
        if known is None:
            self._put(key, Known(slot, content, slot - 1))
        else:
            older = [version for version in known.versions if version[0] < slot]
            later = [version for version in known.versions if version[0] > slot]
            kept = older[-1:] if certain else older
            self._replace(key, known, [*kept, (slot, content), *later][-VERSIONS_MAX:])
        if not certain:
            self._note(slot, key)

    def extend(self, key: str, upto: int) -> None:
        """Record that all changes of an account up to the end of `upto` were taken."""
        known = self._known.get(key)
        if known is not None and upto > known.upto:
            known.upto = upto

    def forget(self, keys: Iterable[str]) -> None:
        """Forget accounts: what is known of them may be wrong, or is not needed."""
        for key in keys:
            known = self._known.pop(key, None)
            if known is not None:
                self.size -= _size(known.versions)

    def clear(self) -> None:
        """Forget everything."""
        self._known.clear()
        self._keys.clear()
        self.size = 0

    def decide(self, decision: Decision) -> None:
        """Take back the versions of a dead slot; drop versions that nothing can bring back any more.

        An account whose oldest version was of the dead slot is forgotten: its earlier content is not known.
        """
        match decision:
            case Dead(slot):
                for key in self._keys.pop(slot, ()):
                    self._take_back(key, slot)
            case Finalized(slot):
                final = [each for each in self._keys if each <= slot]
                for key in {key for each in final for key in self._keys.pop(each)}:
                    self._settle(key, slot)
            case Confirmed():
                pass

    def _note(self, slot: int, key: str) -> None:
        self._keys.setdefault(slot, set()).add(key)
        if len(self._keys) > SLOTS_MAX:
            del self._keys[min(self._keys)]

    def _take_back(self, key: str, slot: int) -> None:
        known = self._known.get(key)
        if known is None or all(version != slot for version, _ in known.versions):
            return
        if known.first == slot:
            self.forget([key])
        else:
            self._replace(key, known, [version for version in known.versions if version[0] != slot])

    def _settle(self, key: str, slot: int) -> None:
        known = self._known.get(key)
        if known is not None:
            old = [version for version in known.versions if version[0] <= slot]
            self._replace(key, known, [*old[-1:], *known.versions[len(old) :]])

    def _put(self, key: str, known: Known) -> None:
        self._known[key] = known
        self.size += _size(known.versions)

    def _replace(self, key: str, known: Known, versions: list[tuple[int, Account | None]]) -> None:
        self.size += _size(versions) - _size(known.versions)
        known.versions = versions


def _size(versions: Collection[tuple[int, Account | None]]) -> int:
    return sum(len(content.data) for _, content in versions if content is not None)
