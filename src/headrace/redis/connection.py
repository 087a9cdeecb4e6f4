"""Commands and scripts on one server: connections, retries, and errors of the driver as errors of Headrace."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Awaitable, Sequence
from importlib import import_module
from typing import Any, Final, Self

from headrace.adapters import load_class
from headrace.model.errors import ConfigError, TransientError
from headrace.model.redact import redact
from headrace.redis import DEFAULT_URL

_PACKAGES: Final = ("redis", "hiredis")
_BACKOFF_S: Final = (0.02, 0.5)
"""First and longest pause between two tries of a request."""

_CLOSE_S: Final = 2.0

SILENCE_S: Final = 5.0
"""Seconds without a message after which a channel's connection is asked for a sign of life, and then for its answer."""

_REFUSALS: Final = ("AuthenticationError", "NoPermissionError")
"""Names of driver errors that only another configuration can end."""


class Script:
    """A Lua script, known to the server by its hash."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


class Redis:
    """One server, through a pool of connections that are opened as needed.

    Every request is tried `retries` times more, with a pause, if its connection breaks. A request may therefore arrive
    twice, so use only commands and scripts that have the same effect then. Answers are as the server sends them: bytes,
    int, None, lists.
    """

    def __init__(self, client: Any) -> None:
        self._client = client
        self._errors = load_class("redis.exceptions:RedisError")
        self._unknown_script = load_class("redis.exceptions:NoScriptError")

    @classmethod
    def of(cls, url: str | None, *, timeout_s: float, retries: int) -> Self:
        """Return the server at `url` (None: DEFAULT_URL). Does not connect yet.

        Raises ConfigError if the packages of the extra `redis` are missing.
        """
        check_packages()
        retry, backoff = load_class("redis.asyncio.retry:Retry"), load_class("redis.backoff:ExponentialBackoff")
        client = load_class("redis.asyncio:Redis").from_url(
            url or DEFAULT_URL,
            protocol=2,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            retry=retry(backoff(base=_BACKOFF_S[0], cap=_BACKOFF_S[1]), retries),
            client_name="headrace",
            driver_info=None,  # otherwise every connection reads the metadata of the package from the disk
        )
        client.response_callbacks.clear()
        return cls(client)

    async def command(self, *words: str | bytes | int | float) -> Any:
        """Send one command and return its answer. Raises TransientError for an error, or if no answer comes."""
        return await self._answer(self._client.execute_command(*words))

    async def run(self, script: Script, keys: Sequence[str], *words: str | bytes | int) -> Any:
        """Run a script and return its answer. Raises the same errors as `command`."""
        (answer,) = await self.run_all(script, keys, [words])
        if isinstance(answer, TransientError):
            raise answer
        return answer

    async def run_all(
        self, script: Script, keys: Sequence[str], calls: Sequence[Sequence[str | bytes | int]]
    ) -> Sequence[Any]:
        """Run a script once for each of `calls`, in order and in one request. An answer may be a TransientError.

        Raises TransientError if the answers did not arrive. Any number of the first calls may then have been run.
        """
        answers = await self._pipeline(script, keys, calls)
        if any(isinstance(answer, self._unknown_script) for answer in answers):
            await self.command("SCRIPT", "LOAD", script.text)
            answers = await self._pipeline(script, keys, calls)
        return [self._error(answer) if isinstance(answer, Exception) else answer for answer in answers]

    async def messages(self, channel: str) -> AsyncGenerator[bytes, None]:
        """Yield what is published on a channel from the first step on, by a connection of its own.

        What is published while the connection is broken is missing. Raises TransientError if the server refuses, can't
        be reached again, or is silent for SILENCE_S although it was asked.
        """
        listener = self._client.pubsub()
        asked = False
        try:
            await self._answer(listener.subscribe(channel))
            while True:
                found = await self._answer(listener.get_message(timeout=SILENCE_S))
                if found is None:
                    if asked:
                        raise TransientError("Redis: no answer on the connection of the channel")
                    await self._answer(listener.ping())
                elif found["type"] == "message":
                    yield found["data"]
                asked = found is None
        finally:
            await self._close(listener)

    async def check(self) -> None:
        """Raise TransientError unless the server answers."""
        await self.command("PING")

    async def check_settings(self) -> None:
        """Check what the bus relies on.

        Raises ConfigError if the server may evict keys, or refuses this user; TransientError if it does not answer.
        """
        try:
            info = await self.info("memory")
        except TransientError as error:
            if any(name in str(error) for name in _REFUSALS):
                raise ConfigError("REDIS_URL", str(error), "a user that may use all keys with the prefix") from error
            raise
        policy = info.get("maxmemory_policy", "noeviction")
        if policy != "noeviction":
            expected = "noeviction: a server that evicts keys loses messages without a word"
            raise ConfigError("maxmemory-policy of the server at REDIS_URL", policy, expected)

    async def info(self, section: str) -> dict[str, str]:
        """Return a section of `INFO` by name. `run_id`, in the section `server`, is new at every start."""
        text: bytes = await self.command("INFO", section)
        named = [line.partition(":") for line in text.decode().splitlines()]
        return {name: value for name, _, value in named}

    async def close(self) -> None:
        """Close all connections, without waiting long for the other end."""
        try:
            async with asyncio.timeout(_CLOSE_S):
                await self._client.aclose(close_connection_pool=True)
        except (TimeoutError, OSError):
            pass

    async def _close(self, listener: Any) -> None:
        """Close the connection of a channel, without waiting long for the other end."""
        try:
            async with asyncio.timeout(_CLOSE_S):
                await listener.aclose()
        except (TimeoutError, OSError, self._errors):
            pass

    async def _pipeline(
        self, script: Script, keys: Sequence[str], calls: Sequence[Sequence[str | bytes | int]]
    ) -> Sequence[Any]:
        pipeline = self._client.pipeline(transaction=False)
        for words in calls:
            pipeline.execute_command("EVALSHA", script.sha, len(keys), *keys, *words)
        answers: Sequence[Any] = await self._answer(pipeline.execute(raise_on_error=False))
        return answers

    async def _answer(self, asked: Awaitable[Any]) -> Any:
        task = asyncio.current_task()
        cancelled = 0 if task is None else task.cancelling()
        try:
            answer = await asked
        except (self._errors, OSError) as error:
            answer = error
        if task is not None and task.cancelling() > cancelled:
            raise asyncio.CancelledError  # which `asyncio.wait_for` of Python 3.11 in the driver may have swallowed
        if isinstance(answer, Exception):
            raise self._error(answer) from answer
        return answer

    def _error(self, error: BaseException) -> TransientError:
        while isinstance(error.__cause__, self._errors):
            error = error.__cause__
        return TransientError(f"Redis: {type(error).__name__}: {redact(str(error))[:200]}")


def check_packages() -> None:
    """Raise ConfigError if the packages of the extra `redis` are missing; the error says how to install them."""
    for package in _PACKAGES:
        try:
            import_module(package)
        except ModuleNotFoundError as error:
            given = f"a server, but not installed: {package}"
            raise ConfigError("REDIS_URL", given, "in a clone: pip install '.[redis]' first") from error
