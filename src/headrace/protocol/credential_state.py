"""State machine of one connection's credential: whether it is valid, and until when. Pure.

The inputs are the results of checks and the time.

    waiting ──attempt──> checking ──accepted──> valid ──notice_s before the end──> warned ──its end──> expired
       ^                    │ put off              ^            accepted again           │               │
       └────────────────────┘                      └─────────────────────────────────────┴───────────────┤
    waiting, checking: connect_s after the connection ──> 4002                     grace_s ──> 4005 <────┘

A failed attempt ends a connection that never had a valid credential. It changes nothing for a connection that has one.
"""

import math
from enum import Enum
from typing import Final, NamedTuple

from headrace.model.errors import RequestError
from headrace.model.identity import Identity
from headrace.protocol.codes import CloseCode, ErrorCode

UNAUTHORIZED: Final = RequestError(ErrorCode.UNAUTHORIZED, "authenticate first")
EXPIRED: Final = RequestError(ErrorCode.TOKEN_EXPIRED, "token expired")
DENIED: Final = RequestError(ErrorCode.DENIED, "permission denied")
BAD_TOKEN: Final = RequestError(ErrorCode.UNAUTHORIZED, "bad token")
OTHER_SUBJECT: Final = RequestError(ErrorCode.DENIED, "the token is another user's")
ONE_AT_A_TIME: Final = RequestError(ErrorCode.BAD_REQUEST, "another token is being checked")


class State(Enum):
    """State of a connection. `WAITING` has no credential yet; `EXPIRED` is in its grace period."""

    WAITING = "waiting"
    VALID = "valid"
    WARNED = "warned"
    EXPIRED = "expired"
    CLOSED = "closed"


class Terms(NamedTuple):
    """Times in seconds: for authenticating, of notice before a credential expires, and of grace afterwards."""

    connect_s: float = 10
    notice_s: float = 60
    grace_s: float = 25


class Entered(NamedTuple):
    """The connection is authenticated for the first time."""


class Renewed(NamedTuple):
    """A newer credential of the same subject replaces the previous one."""


class Warn(NamedTuple):
    """Warn the client: the credential expires in `in_s` seconds."""

    in_s: int


class Refuse(NamedTuple):
    """Refuse the attempt. The state of the connection does not change."""

    failure: RequestError


class End(NamedTuple):
    """Close the connection."""

    code: CloseCode


class CredentialState:
    """The credential of one connection. `claimed` is the user that the connection's URL names; None if it names none.

    Times are monotonic seconds. The caller reads `wake_at_s` after every call, and calls `wake` at that time.
    """

    def __init__(self, claimed: str | None, terms: Terms, now_s: float) -> None:
        self.state = State.WAITING
        self.checking = False
        self.identity: Identity | None = None
        self._claimed, self._terms = claimed, terms
        self._due_s = now_s + terms.connect_s
        self._expires_s = math.inf

    @property
    def wake_at_s(self) -> float:
        """Monotonic time in seconds of the next due action; infinity once the connection has ended."""
        return self._due_s

    @property
    def subject(self) -> str | None:
        """User of the accepted credential; None if no credential has been accepted."""
        return None if self.identity is None else self.identity.subject

    def attempt(self) -> None:
        """Record that the check of a credential begins. Raises RequestError 107 while another check runs."""
        if self.checking:
            raise ONE_AT_A_TIME
        self.checking = True

    def accept(self, identity: Identity, valid_s: float, now_s: float) -> Entered | Renewed | Refuse | End | None:
        """Accept a credential that proved `identity`, valid for `valid_s` seconds.

        Returns None if the connection has already ended.
        """
        self.checking = False
        if self.state is State.CLOSED:
            return None
        first = self.identity is None
        if first and self._claimed not in (None, identity.subject):
            return self._end(CloseCode.DENIED)
        if not first and self.subject != identity.subject:
            return Refuse(OTHER_SUBJECT)
        self.identity = identity
        self.state = State.VALID
        self._expires_s = now_s + valid_s
        notice_s = self._terms.notice_s
        if not first and valid_s <= notice_s:
            notice_s = valid_s / 2  # after an immediate warning, a client might send this same credential in a loop
        self._due_s = self._expires_s - notice_s
        return Entered() if first else Renewed()

    def refuse(self, failure: RequestError) -> Refuse | End | None:
        """Process a failed check. If the failure is temporary, the client may try again."""
        self.checking = False
        if self.state is State.CLOSED:
            return None
        if self.identity is not None or failure.temporary:
            return Refuse(failure)
        return self._end(CloseCode.EXPIRED if failure.code == ErrorCode.TOKEN_EXPIRED else CloseCode.BAD_TOKEN)

    def wake(self, now_s: float) -> list[Warn | End]:
        """Return the actions that are due now, in order."""
        due: list[Warn | End] = []
        while now_s >= self._due_s:
            if self.state is State.WAITING:
                due.append(self._end(CloseCode.AUTH_TIMEOUT))
            elif self.state is State.VALID:
                self.state, self._due_s = State.WARNED, self._expires_s
                due.append(Warn(max(0, math.floor(self._expires_s - now_s))))
            elif self.state is State.WARNED:
                self.state, self._due_s = State.EXPIRED, self._expires_s + self._terms.grace_s
            else:
                due.append(self._end(CloseCode.EXPIRED))
        return due

    def check_command(self) -> None:
        """Raise RequestError 101 or 109 while no command but `auth` is allowed."""
        if self.state is State.WAITING:
            raise UNAUTHORIZED
        if self.state is State.EXPIRED:
            raise EXPIRED

    def check_topic(self, topic: str) -> None:
        """Raise RequestError 103 for a topic that this connection may not read."""
        if self.identity is None or not self.identity.may_read(topic):
            raise DENIED

    def close(self) -> None:
        """Record that the connection has ended."""
        self.state, self._due_s = State.CLOSED, math.inf

    def _end(self, code: CloseCode) -> End:
        self.close()
        return End(code)
