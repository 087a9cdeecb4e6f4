"""The keys with which tokens are checked: one secret, or the issuer's public keys, read again when they change."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import httpx
import structlog

from headrace import __version__
from headrace.gateway.auth.jwks import BYTES_MAX, Keys, PublicKeyAlgorithm, read_keys
from headrace.gateway.auth.settings import AuthSettings
from headrace.model.errors import BadInputError, TransientError
from headrace.model.redact import redact
from headrace.runtime.backoff import Backoff
from headrace.runtime.clock import Clock
from headrace.runtime.health import Health
from headrace.runtime.supervise import Supervisor

KEPT_S: Final = 86_400
"""Maximum time in seconds that keys stay valid without a successful reading. They may have been withdrawn meanwhile."""

Load = Callable[[], Awaitable[bytes]]

_log = structlog.get_logger("auth")


class KeyRing(Protocol):
    """Source of keys that check tokens."""

    async def find(self, kid: str | None) -> Sequence[Any]:
        """Return the keys, at least one, that may have signed a token with this `kid`.

        Raises BadInputError if there is no such key, and TransientError if that is unknown. A call waits for at most
        one reading of the issuer's keys, and concurrent calls wait for the same reading.
        """


class SharedSecret:
    """One secret for all tokens, whatever `kid` a token names, and the previous secret while it is being replaced."""

    def __init__(self, secret: str, previous: str | None = None) -> None:
        self._secrets = [each.encode() for each in (secret, previous) if each]

    def __repr__(self) -> str:
        return "<SharedSecret>"

    async def find(self, kid: str | None) -> Sequence[bytes]:
        return self._secrets


class IssuerKeys:
    """Public keys by `kid`, read again every `jwks_refresh_s`, and when a token names an unknown key.

    `load` returns the key set as bytes. Only one reading runs at a time, followed by a pause of `jwks_rest_s`, however
    many tokens name unknown keys. During the pause, `find` raises TransientError for an unknown key. A failed reading
    changes no key.
    """

    def __init__(
        self, load: Load, algorithm: PublicKeyAlgorithm, settings: AuthSettings, clock: Clock, health: Health
    ) -> None:
        self._load, self._algorithm, self._settings, self._clock, self._health = (
            load,
            algorithm,
            settings,
            clock,
            health,
        )
        self._keys: Keys = {}
        self._known_at_s = self._rested_at_s = clock.monotonic()
        self._wanted = asyncio.Event()
        self._looked = asyncio.Event()
        self._looking = False
        self._failed = False

    async def find(self, kid: str | None) -> Sequence[Any]:
        key = self._get(kid)
        if key is not None:
            return [key]
        if kid is None and self._keys:
            raise BadInputError("unknown_key")  # the token must name one of several keys; reading again would not help
        rest_s = self._rested_at_s - self._clock.monotonic()
        if rest_s > 0 and not self._looking:
            raise TransientError("the issuer's keys were looked at a moment ago", retry_after_s=rest_s)
        looked = self._looked
        self._wanted.set()
        await looked.wait()
        key = self._get(kid)
        if key is None:
            if self._failed:
                raise TransientError("the issuer's keys can't be had", retry_after_s=self._settings.jwks_rest_s)
            raise BadInputError("unknown_key")
        return [key]

    def start(self, tasks: Supervisor) -> None:
        """Read the keys now, and again whenever a reading is due."""
        self._wanted.set()
        tasks.start("auth", "keys", self._run, restart=Backoff(1.0, 60.0))
        tasks.start("auth", "keys_age", self._ask_now_and_then)

    def want(self) -> None:
        """Read the keys as soon as the pause since the last reading is over."""
        self._wanted.set()

    async def look(self) -> str:
        """Read the keys again, and resume waiting calls. Return the problem, or an empty text if there was none."""
        self._looking, self._failed, problem = True, True, ""
        try:
            async with asyncio.timeout(self._settings.jwks_timeout_s):
                self._keys = read_keys(await self._load(), self._algorithm)
            self._known_at_s, self._failed = self._clock.monotonic(), False
        except TimeoutError:
            problem = f"no answer in {self._settings.jwks_timeout_s:g} s"
        except (BadInputError, TransientError) as error:
            problem = str(error)
        finally:
            self._looking = False
            self._rested_at_s = self._clock.monotonic() + self._settings.jwks_rest_s
            looked, self._looked = self._looked, asyncio.Event()
            looked.set()
        if problem:
            _log.warning("issuer_keys_not_read", problem=problem, keys=len(self._keys))
        # /health/ready shows this text to anyone. The log has the exact problem.
        detail = "the issuer's keys can't be had" if problem else f"{len(self._keys)} keys of the issuer"
        self._health.report("auth", ready=bool(self._keys), detail=detail)
        return problem

    def _get(self, kid: str | None) -> Any:
        """Return a known key. If there is only one key, it is also the key of tokens without a `kid`."""
        if self._clock.monotonic() - self._known_at_s > KEPT_S:
            return None
        if kid is None and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        return None if kid is None else self._keys.get(kid)

    async def _run(self) -> None:
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            await self.look()
            await self._clock.sleep(self._settings.jwks_rest_s)
            if self._failed:
                self._wanted.set()

    async def _ask_now_and_then(self) -> None:
        while True:
            await self._clock.sleep(self._settings.jwks_refresh_s)
            self._wanted.set()


def from_file(path: Path) -> Load:
    """Return a function that loads a key set from a file."""

    def read() -> bytes:
        with path.open("rb") as file:
            return file.read(BYTES_MAX + 1)

    async def load() -> bytes:
        try:
            return await asyncio.to_thread(read)
        except OSError as error:
            raise TransientError(f"{path}: {error.strerror}") from None

    return load


def from_url(url: str) -> Load:
    """Return a function that loads a key set over HTTP: one response with status 200, bounded, without redirects."""

    async def load() -> bytes:
        tls: Any = await asyncio.to_thread(httpx.create_ssl_context) if url.startswith("https:") else False
        headers = {"user-agent": f"headrace/{__version__}", "accept": "application/json", "accept-encoding": "identity"}
        try:
            async with (
                httpx.AsyncClient(verify=tls, headers=headers, timeout=None) as http,  # noqa: S113  (`look` has one)
                http.stream("GET", url) as response,
            ):
                if response.status_code != 200:
                    raise TransientError(f"HTTP {response.status_code}")
                body = bytearray()
                async for part in response.aiter_raw():
                    body += part
                    if len(body) > BYTES_MAX:
                        break
                return bytes(body)
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise TransientError(redact(repr(error))) from None

    return load
