"""The directory of servers on Redis or Valkey: a sorted set of heartbeats, and a hash for each lease."""

import secrets
from collections.abc import AsyncGenerator, Sequence
from typing import Final

import msgspec

from headrace.adapters import Context
from headrace.cluster import BOX_MAX, CHANNEL, SERVE_S, Answer, ClusterSettings, Grant, Member, Server
from headrace.model.errors import TransientError
from headrace.redis import DEFAULT_PREFIX, RedisPrefix, RedisRetries, RedisTimeout, RedisUrl
from headrace.redis.connection import Redis, Script, check_packages

ANSWER_MS: Final = 10_000
"""Milliseconds for which an answer is kept for the server that asked."""

REQUEST_MS: Final = 60_000
"""Milliseconds for which a box is kept while no server serves it."""

_NOW: Final = "local t = redis.call('TIME'); local now = t[1] * 1000 + math.floor(t[2] / 1000)\n"
"""Milliseconds by the server's clock: the one clock for all heartbeats and leases."""

_BEAT: Final = Script(
    _NOW
    + """
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
for _, gone in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[3])) do
  redis.call('ZREM', KEYS[1], gone)
  redis.call('HDEL', KEYS[2], gone)
end
local found = {}
for _, name in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  found[#found + 1] = {now - redis.call('ZSCORE', KEYS[1], name), redis.call('HGET', KEYS[2], name) or ''}
end
return found
"""
)
_LEAVE: Final = Script("redis.call('ZREM', KEYS[1], ARGV[1]); return redis.call('HDEL', KEYS[2], ARGV[1])")

_TAKE: Final = Script(
    _NOW
    + """
local known = redis.call('HMGET', KEYS[1], 'holder', 'until', 'token', 'note')
if known[1] and known[1] ~= ARGV[1] and tonumber(known[2]) > now then return false end
local token = math.max((tonumber(known[3]) or 0) + 1, now)
redis.call('HSET', KEYS[1], 'holder', ARGV[1], 'until', string.format('%.0f', now + ARGV[2]),
  'token', string.format('%.0f', token))
return {token, known[4] or ''}
"""
)
"""The token is at least the time in ms, so that it grows even after the server has lost its data."""

_KEEP: Final = Script(
    _NOW
    + """
local known = tonumber(redis.call('HGET', KEYS[1], 'token') or 0)
if known > tonumber(ARGV[2]) then return 0 end
redis.call('HSET', KEYS[1], 'holder', ARGV[1], 'until', string.format('%.0f', now + ARGV[3]),
  'token', ARGV[2], 'note', ARGV[4])
return 1
"""
)
_RELEASE: Final = Script("""
if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then return 0 end
return redis.call('HSET', KEYS[1], 'until', '0', 'note', ARGV[2],
  'token', string.format('%.0f', ARGV[1] + 1))
""")
_ASK: Final = Script("""
if redis.call('LLEN', KEYS[1]) >= tonumber(ARGV[2]) then return 0 end
redis.call('RPUSH', KEYS[1], ARGV[1])
return redis.call('PEXPIRE', KEYS[1], ARGV[3])
""")
_ANSWER: Final = Script("redis.call('RPUSH', KEYS[1], ARGV[1]); return redis.call('PEXPIRE', KEYS[1], ARGV[2])")


class RedisClusterSettings(ClusterSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Settings of the directory, and of the Redis or Valkey that stores it."""

    url: RedisUrl = None
    prefix: RedisPrefix = "headrace"
    timeout_s: RedisTimeout = 2.0
    retries: RedisRetries = 3


class RedisCluster:
    """The `Cluster` of all servers on one Redis under one prefix."""

    Settings = RedisClusterSettings
    shared = True

    def __init__(self, redis: Redis, prefix: str) -> None:
        self._redis, self._prefix = redis, prefix

    @staticmethod
    def check_packages() -> None:
        """Raise ConfigError if the packages of the extra `redis` are missing."""
        check_packages()

    @classmethod
    async def open(cls, settings: RedisClusterSettings, context: Context) -> "RedisCluster":
        return cls(Redis.of(settings.url, timeout_s=settings.timeout_s, retries=settings.retries), settings.prefix)

    async def beat(self, server: Server, silence_s: float) -> Sequence[Member]:
        words = (server.incarnation, msgspec.json.encode(server), round(silence_s * 1000))
        found = await self._redis.run(_BEAT, self._directory(), *words)
        members = [Member(known, int(age)) for age, text in found if (known := _read(text)) is not None]
        return sorted(members, key=lambda member: (member.server.server_id, member.server.incarnation))

    async def leave(self, server: Server) -> None:
        await self._redis.run(_LEAVE, self._directory(), server.incarnation)

    async def take(self, lease: str, holder: str, ttl_s: float) -> Grant | None:
        found = await self._redis.run(_TAKE, [self._lease(lease)], holder, round(ttl_s * 1000))
        return None if found is None else Grant(int(found[0]), bytes(found[1]))

    async def keep(self, lease: str, holder: str, token: int, ttl_s: float, note: bytes) -> bool:
        return bool(await self._redis.run(_KEEP, [self._lease(lease)], holder, token, round(ttl_s * 1000), note))

    async def release(self, lease: str, token: int, note: bytes) -> None:
        await self._redis.run(_RELEASE, [self._lease(lease)], token, note)

    async def ask(self, box: str, request: bytes, patience_s: float) -> bytes:
        answers = f"{self._prefix}:answer:{secrets.token_hex(12)}"
        packed = msgspec.msgpack.encode((answers, request))
        if not await self._redis.run(_ASK, [self._box(box)], packed, BOX_MAX, REQUEST_MS):
            raise TransientError(f"{box} is full: nobody answers")
        found = await self._redis.command("BLPOP", answers, patience_s)
        if found is None:
            raise TransientError(f"nobody answers in {box}")
        return bytes(found[1])

    async def serve(self, box: str, answer: Answer) -> None:
        found = await self._redis.command("BLPOP", self._box(box), SERVE_S)
        if found is None:
            return
        try:
            answers, request = msgspec.msgpack.decode(found[1], type=tuple[str, bytes])
        except msgspec.DecodeError:
            return
        await self._redis.run(_ANSWER, [answers], await answer(request), ANSWER_MS)

    async def publish(self, message: bytes) -> None:
        await self._redis.command("PUBLISH", self._channel(), message)

    def messages(self) -> AsyncGenerator[bytes, None]:
        return self._redis.messages(self._channel())

    async def close(self) -> None:
        await self._redis.close()

    def _directory(self) -> list[str]:
        return [f"{self._prefix}:{{servers}}:beats", f"{self._prefix}:{{servers}}:details"]

    def _channel(self) -> str:
        """Return the channel's name: as other programs know it, unless a prefix keeps deployments apart."""
        return CHANNEL if self._prefix == DEFAULT_PREFIX else f"{self._prefix}:{CHANNEL}"

    def _lease(self, name: str) -> str:
        return f"{self._prefix}:lease:{{{name}}}"

    def _box(self, name: str) -> str:
        return f"{self._prefix}:box:{{{name}}}"


def _read(text: bytes) -> Server | None:
    """Return a server's description; None for one that can't be read, which another version wrote."""
    try:
        return msgspec.json.decode(text, type=Server)
    except msgspec.DecodeError:
        return None
