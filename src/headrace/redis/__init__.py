"""The connection to Redis or Valkey, which all packages that store something there share, and its settings."""

from typing import Annotated, Final, TypeAlias

import msgspec

from headrace.config import SameAs, Setting

DEFAULT_URL: Final = "redis://localhost:6379"
"""The server that is used if REDIS_URL is not set."""

DEFAULT_PREFIX: Final = "headrace"


class RedisSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Section `[redis]`: how the server at REDIS_URL is used. An adapter repeats the fields by the types below."""

    prefix: Annotated[
        str,
        msgspec.Meta(pattern=r"^[A-Za-z0-9_.:-]{1,64}$"),
        Setting(
            "first part of the names of all keys and channels; deployments that share a server differ in it",
            env=("REDIS_PREFIX",),
        ),
    ] = DEFAULT_PREFIX
    timeout_s: Annotated[
        float,
        msgspec.Meta(ge=0.1, le=60),
        Setting("longest wait for a connection or an answer", env=("REDIS_TIMEOUT_S",)),
    ] = 2.0
    retries: Annotated[
        int,
        msgspec.Meta(ge=0, le=20),
        Setting("further tries of a request that a broken connection left unanswered", env=("REDIS_RETRIES",)),
    ] = 3


RedisUrl: TypeAlias = Annotated[str | None, SameAs("core.redis_url")]
RedisPrefix: TypeAlias = Annotated[str, SameAs("redis.prefix")]
RedisTimeout: TypeAlias = Annotated[float, SameAs("redis.timeout_s")]
RedisRetries: TypeAlias = Annotated[int, SameAs("redis.retries")]
"""Types of the fields with which the settings of an adapter repeat REDIS_URL and `[redis]`."""
