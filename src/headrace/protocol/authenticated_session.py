"""The server's session where credentials are required: accepts commands only while the credential is valid. Pure."""

from collections.abc import Sequence
from typing import Final

import msgspec

from headrace.model.credentials import Credential
from headrace.model.errors import RequestError
from headrace.model.identity import Identity
from headrace.model.topics import ORDER_PREFIX
from headrace.protocol import frames
from headrace.protocol.credential_state import UNAUTHORIZED, CredentialState, End, Entered, Refuse, Renewed, Warn
from headrace.protocol.frames import AuthData, Envelope, FrameId, Limits
from headrace.protocol.session import (
    Action,
    Authenticate,
    Close,
    History,
    OwnerOnly,
    Revoke,
    Send,
    ServerSession,
    Subscribe,
    read_data,
)

HELD_MAX: Final = 32
HELD_BYTES: Final = 8192
"""Maximum number of commands, and their maximum size in bytes, that may wait while the first credential is checked."""

_auth = msgspec.json.Decoder(AuthData)


class AuthenticatedSession(ServerSession):
    """Session that accepts commands only while its credential is valid, and only for topics that its identity may read.

    If this server has `orders`, a command on an order's topic becomes an OwnerOnly action; otherwise it is denied.
    `given` is the credential of the handshake. Commands that arrive while the first credential is being checked wait
    for the result.
    The caller calls `authenticated` or `not_authenticated` for each Authenticate action, and `wake` at
    `credential.wake_at_s`. After each call, the caller performs the returned actions.
    """

    def __init__(
        self,
        limits: Limits,
        now_s: float,
        credential: CredentialState,
        given: Credential | None = None,
        *,
        orders: bool = False,
    ) -> None:
        super().__init__(limits, now_s, orders=orders)
        self.credential = credential
        self._given = given
        self._wanted: Sequence[str] = ()
        self._held: list[Envelope] = []
        self._asked = False  # whether the credential being checked came in an `auth` command, which needs an answer

    def open(self, wanted: Sequence[str]) -> list[Action]:
        """Check the handshake's credential, or wait for a first credential.

        The welcome and the `wanted` topics come afterwards.
        """
        self._wanted = wanted
        given, self._given = self._given, None
        return [] if given is None else self._attempt(given, None, asked=False)

    def authenticated(self, identity: Identity, valid_s: float, request_id: FrameId, now_s: float) -> list[Action]:
        """Process the result of a check: the credential proves `identity` and is valid for `valid_s` more seconds."""
        outcome = self.credential.accept(identity, valid_s, now_s)
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
        """Process the result of a check: the credential is not valid, or could not be checked."""
        match self.credential.refuse(failure):
            case Refuse():
                return [Send(frames.error(failure, request_id)), *self._release()]
            case End(code):
                return [Send(frames.error(failure, request_id)), Close(code)]
            case None:
                return []

    def wake(self, now_s: float) -> list[Action]:
        """Return the actions that are due now."""
        due = self.credential.wake(now_s)
        return [Send(frames.auth_expiring(what.in_s)) if isinstance(what, Warn) else Close(what.code) for what in due]

    def _obey(self, envelope: Envelope) -> list[Action]:
        if envelope.type == "auth":
            return self._attempt(Credential("token", read_data(_auth, envelope).token), envelope.id, asked=True)
        if self.credential.checking and self.credential.identity is None:
            return self._hold(envelope)
        self.credential.check_command()
        return self._to_owner(super()._obey(envelope))

    def _admit(self, topic: str) -> None:
        if not self._is_for_owner(topic):
            self.credential.check_topic(topic)

    def _is_for_owner(self, topic: str) -> bool:
        return self._orders and topic.startswith(ORDER_PREFIX)

    def _to_owner(self, actions: Sequence[Action]) -> list[Action]:
        """Return the actions, with each action on an order's topic wrapped in OwnerOnly."""
        user_id = self.credential.subject
        if user_id is None:
            return list(actions)
        return [
            OwnerOnly(user_id, action)
            if isinstance(action, Subscribe | History) and self._is_for_owner(action.topic)
            else action
            for action in actions
        ]

    def _attempt(self, credential: Credential, request_id: FrameId, *, asked: bool) -> list[Action]:
        self.credential.attempt()
        self._asked = asked
        return [Authenticate(credential, request_id)]

    def _hold(self, envelope: Envelope) -> list[Action]:
        held_bytes = sum(len(bytes(held.data)) for held in self._held)
        if len(self._held) >= HELD_MAX or held_bytes + len(bytes(envelope.data)) > HELD_BYTES:
            raise UNAUTHORIZED
        self._held.append(Envelope(envelope.type, envelope.id, envelope.data.copy()))
        return []

    def _release(self) -> list[Action]:
        """Run the commands that waited for the first credential. A command that fails does not stop the next one."""
        held, self._held = self._held, []
        actions: list[Action] = []
        for envelope in held:
            try:
                actions += self._obey(envelope)
            except RequestError as failure:
                actions.append(Send(frames.error(failure, envelope.id)))
        return actions

    def _revoke(self) -> list[Action]:
        """End the topics that the newer credential does not allow.

        Topics of orders stay, because the user is the same.
        """
        lost = [topic for topic in sorted(self.topics) if not self._may_read(topic)]
        for topic in lost:
            del self.topics[topic]
        return [Revoke(topic) for topic in lost]

    def _may_read(self, topic: str) -> bool:
        identity = self.credential.identity
        return identity is not None and (self._is_for_owner(topic) or identity.may_read(topic))
