"""A session on a server that wants to know who its clients are: nothing is done for one before that, or after. Pure."""

from collections.abc import Sequence
from typing import Final

import msgspec

from headrace.model.credentials import Credential
from headrace.model.errors import RequestError
from headrace.model.identity import Identity
from headrace.model.topics import ORDER_PREFIX
from headrace.protocol import frames
from headrace.protocol.credential_state import UNAUTHORIZED, End, Entered, Refuse, Renewed, Standing, Warn
from headrace.protocol.frames import AuthData, Envelope, FrameId, Limits
from headrace.protocol.session import (
    Action,
    Authenticate,
    Close,
    History,
    OwnerOnly,
    Revoke,
    Send,
    Session,
    Subscribe,
    read_data,
)

HELD_MAX: Final = 32
HELD_BYTES: Final = 8192
"""Commands that wait, and their bytes, while a connection's first credential is checked."""

_auth = msgspec.json.Decoder(AuthData)


class GatedSession(Session):
    """A session whose commands pass only while its `standing` is good, for topics that its identity may have.

    What is asked of an order's topic becomes an OwnerOnly action, where this server has `orders`; else it is denied.
    `credential` came with the handshake. Commands sent right behind a first credential wait until it is checked. The
    shell calls `authenticated` or `not_authenticated` for each Authenticate action, and `wake` at
    `standing.wake_at_s`; for each it performs the actions that come back.
    """

    def __init__(
        self,
        limits: Limits,
        now_s: float,
        standing: Standing,
        credential: Credential | None = None,
        *,
        orders: bool = False,
    ) -> None:
        super().__init__(limits, now_s, orders=orders)
        self.standing = standing
        self._credential = credential
        self._wanted: Sequence[str] = ()
        self._held: list[Envelope] = []
        self._asked = False  # whether it was an `auth` command, which is answered, that is being checked

    def open(self, wanted: Sequence[str]) -> list[Action]:
        """Check the handshake's credential, or wait for one; the welcome and what is `wanted` come after that."""
        self._wanted = wanted
        credential, self._credential = self._credential, None
        return [] if credential is None else self._attempt(credential, None, asked=False)

    def authenticated(self, identity: Identity, valid_s: float, request_id: FrameId, now_s: float) -> list[Action]:
        """The credential is `identity`'s, and good for `valid_s` more seconds."""
        outcome = self.standing.accept(identity, valid_s, now_s)
        answer: list[Action] = []
        if self._asked:
            answer.append(Send(frames.authenticated(request_id, identity.subject, max(0, int(valid_s)))))
        match outcome:
            case Entered():
                welcome, *subscribed = super().open(self._wanted)
                return [welcome, *answer, *self._to_owner(subscribed), *self._release(), *self.wake(now_s)]
            case Renewed():
                return [*answer, *self._revoke(), *self.wake(now_s)]
            case Refuse(failure):
                return [Send(frames.error(failure, request_id))]
            case End(code):
                return [Close(code)]
            case None:
                return []

    def not_authenticated(self, failure: RequestError, request_id: FrameId) -> list[Action]:
        """The credential proved nothing, or could not be checked."""
        match self.standing.refuse(failure):
            case Refuse():
                return [Send(frames.error(failure, request_id)), *self._release()]
            case End(code):
                return [Send(frames.error(failure, request_id)), Close(code)]
            case None:
                return []

    def wake(self, now_s: float) -> list[Action]:
        """What the time has come for."""
        due = self.standing.wake(now_s)
        return [Send(frames.auth_expiring(what.in_s)) if isinstance(what, Warn) else Close(what.code) for what in due]

    def _obey(self, envelope: Envelope) -> list[Action]:
        if envelope.type == "auth":
            return self._attempt(Credential("token", read_data(_auth, envelope).token), envelope.id, asked=True)
        if self.standing.checking and self.standing.identity is None:
            return self._hold(envelope)
        self.standing.check_command()
        return self._to_owner(super()._obey(envelope))

    def _admit(self, topic: str) -> None:
        if not self._is_for_owner(topic):
            self.standing.check_topic(topic)

    def _is_for_owner(self, topic: str) -> bool:
        return self._orders and topic.startswith(ORDER_PREFIX)

    def _to_owner(self, actions: Sequence[Action]) -> list[Action]:
        """The actions; those on the topic of an order only for whom it belongs to."""
        user_id = self.standing.subject
        if user_id is None:
            return list(actions)
        return [
            OwnerOnly(user_id, action)
            if isinstance(action, Subscribe | History) and self._is_for_owner(action.topic)
            else action
            for action in actions
        ]

    def _attempt(self, credential: Credential, request_id: FrameId, *, asked: bool) -> list[Action]:
        self.standing.attempt()
        self._asked = asked
        return [Authenticate(credential, request_id)]

    def _hold(self, envelope: Envelope) -> list[Action]:
        held_bytes = sum(len(bytes(held.data)) for held in self._held)
        if len(self._held) >= HELD_MAX or held_bytes + len(bytes(envelope.data)) > HELD_BYTES:
            raise UNAUTHORIZED
        self._held.append(Envelope(envelope.type, envelope.id, envelope.data.copy()))
        return []

    def _release(self) -> list[Action]:
        """Do what was held; each command for itself."""
        held, self._held = self._held, []
        actions: list[Action] = []
        for envelope in held:
            try:
                actions += self._obey(envelope)
            except RequestError as failure:
                actions.append(Send(frames.error(failure, envelope.id)))
        return actions

    def _revoke(self) -> list[Action]:
        """End the topics that the newer credential does not allow. Orders stay: it is for the same subject."""
        lost = [topic for topic in sorted(self.topics) if not self._may_read(topic)]
        for topic in lost:
            del self.topics[topic]
        return [Revoke(topic) for topic in lost]

    def _may_read(self, topic: str) -> bool:
        identity = self.standing.identity
        return identity is not None and (self._is_for_owner(topic) or identity.may_read(topic))
