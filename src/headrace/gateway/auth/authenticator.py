"""Checks credentials. No other module turns tokens and tickets into identities."""

import math
from collections.abc import Callable
from functools import partial
from typing import Final, cast

import structlog

from headrace.gateway.auth.jwks import BYTES_MAX, PublicKeyAlgorithm, read_keys
from headrace.gateway.auth.keys import IssuerKeys, KeyRing, SharedSecret, from_file, from_url
from headrace.gateway.auth.settings import PUBLIC_KEYS, AuthSettings
from headrace.gateway.auth.tickets import MemoryTickets, Tickets
from headrace.gateway.auth.tokens import NotYetValid, Tokens
from headrace.model.credentials import Credential
from headrace.model.errors import BadInputError, ConfigError, RequestError, TransientError
from headrace.model.identity import Identity
from headrace.protocol.codes import UNAVAILABLE, ErrorCode
from headrace.protocol.credential_state import BAD_TOKEN, EXPIRED
from headrace.runtime.clock import Clock
from headrace.runtime.health import Health
from headrace.runtime.metrics import Metrics
from headrace.runtime.supervise import Supervisor

RETRY_AFTER_S: Final = 1.0
NOT_YET_MAX_S: Final = 3600.0
"""Maximum number of seconds that a client is asked to wait until its token becomes valid.

By then it may have another token.
"""

_log = structlog.get_logger("auth")


class Authenticator:
    """Checks credentials for the whole server. No error, metric or log line contains a credential."""

    def __init__(self, settings: AuthSettings, clock: Clock, metrics: Metrics, health: Health) -> None:
        self.settings, self._clock = settings, clock
        self._keys = _key_ring(settings, clock, health)
        self._tokens = Tokens(settings, self._keys, clock)
        self.tickets: Tickets = MemoryTickets(clock, ticket_s=settings.ticket_s, tickets_max=settings.tickets_max)
        self._checked = metrics.counter("gateway_credentials", "Tokens and tickets checked", ("kind", "outcome"))
        self._tasks: Supervisor | None = None

    async def start(self, tasks: Supervisor) -> None:
        """Start the readings of the issuer's keys. If the keys are in a file, return once they are read.

        Raises ConfigError for a file without usable keys.
        """
        self._tasks = tasks
        if not isinstance(self._keys, IssuerKeys):
            return
        if self.settings.jwks_file is not None and (problem := await self._keys.look()):
            raise _unusable_file(self.settings, problem)
        if (self.settings.jwks_url or "").startswith("http:"):
            _log.warning("issuer_keys_over_http", meaning="who can change the answers on their way can make tokens")
        self._keys.start(tasks)

    async def reload(self) -> None:
        """Read the keys again: from a file at once, from a URL as soon as the pause since the last reading is over."""
        if isinstance(self._keys, IssuerKeys):
            if self.settings.jwks_file is not None:
                await self._keys.look()
            else:
                self._keys.want()

    async def identify(self, credential: Credential) -> Identity:
        """Return the credential's owner. A ticket can't be used again.

        Raises RequestError 101, 109, or (if temporary) 108.
        """
        outcome: str = "accepted"
        try:
            return await self._identify(credential)
        except BadInputError as error:
            outcome = error.reason
            _log.debug("credential_refused", kind=credential.kind, reason=error.reason)
            if isinstance(error, NotYetValid):
                raise _not_yet(error.wait_s) from None
            raise (EXPIRED if error.reason == "expired" else BAD_TOKEN) from None
        except TransientError as error:
            outcome = "unavailable"
            raise unavailable(error) from None
        finally:
            self._checked.labels(credential.kind, outcome).inc()

    def check(
        self,
        credential: Credential,
        accepted: Callable[[Identity, float], None],
        refused: Callable[[RequestError], None],
    ) -> None:
        """Check the credential in a task, then call `accepted(identity, seconds of validity)` or `refused(failure)`."""
        assert self._tasks is not None
        work = partial(self._check, credential, accepted, refused)
        self._tasks.start("auth", "check", work, on_failure=partial(refused, UNAVAILABLE))

    def valid_s(self, identity: Identity) -> float:
        """Return the seconds until the identity expires."""
        return identity.expires_at_ms / 1000 - self._clock.wall_ns() / 1e9

    async def _check(
        self,
        credential: Credential,
        accepted: Callable[[Identity, float], None],
        refused: Callable[[RequestError], None],
    ) -> None:
        try:
            identity = await self.identify(credential)
        except RequestError as failure:
            refused(failure)
            return
        accepted(identity, self.valid_s(identity))

    async def _identify(self, credential: Credential) -> Identity:
        if credential.kind == "token":
            return await self._tokens.verify(credential.secret)
        identity = await self.tickets.redeem(credential.secret)
        if identity is None:
            raise BadInputError("unknown_ticket")
        if self.valid_s(identity) <= 0:
            raise BadInputError("expired")
        return identity


def unavailable(error: TransientError) -> RequestError:
    retry_after_ms = int((error.retry_after_s or RETRY_AFTER_S) * 1000) + 1
    return RequestError(ErrorCode.UNAVAILABLE, "temporarily unavailable", temporary=True, retry_after_ms=retry_after_ms)


def _not_yet(wait_s: float) -> RequestError:
    """Return the refusal of a token that, by this server's clock, becomes valid later.

    The client is asked to retry then.
    """
    retry_after_ms = math.ceil(min(wait_s, NOT_YET_MAX_S) * 1000)
    return RequestError(ErrorCode.UNAVAILABLE, "token not valid yet", temporary=True, retry_after_ms=retry_after_ms)


def check_keys_file(settings: AuthSettings) -> None:
    """Raise ConfigError if the file of the issuer's keys is the chosen one and has no usable key."""
    if settings.mode not in PUBLIC_KEYS or settings.jwks_file is None:
        return
    algorithm = _algorithm(settings)
    try:
        with settings.jwks_file.open("rb") as file:
            read_keys(file.read(BYTES_MAX + 1), algorithm)
    except (OSError, BadInputError) as error:
        problem = error.strerror or "an error" if isinstance(error, OSError) else str(error)
        raise _unusable_file(settings, problem) from error


def _unusable_file(settings: AuthSettings, problem: str) -> ConfigError:
    return ConfigError("JWKS_FILE", problem, f"a JSON Web Key Set with keys for {settings.mode.upper()}")


def _algorithm(settings: AuthSettings) -> PublicKeyAlgorithm:
    return cast("PublicKeyAlgorithm", settings.mode.upper())


def _key_ring(settings: AuthSettings, clock: Clock, health: Health) -> KeyRing:
    if settings.mode == "hs256":
        return SharedSecret(settings.jwt_secret or "", settings.jwt_secret_previous)
    algorithm = _algorithm(settings)
    if settings.jwks_file is not None:
        return IssuerKeys(from_file(settings.jwks_file), algorithm, settings, clock, health)
    return IssuerKeys(from_url(settings.jwks_url or ""), algorithm, settings, clock, health)
