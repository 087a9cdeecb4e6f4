"""A Valkey server for one test process, and connections to it."""

import secrets
from contextlib import AsyncExitStack

import pytest

from headrace.cluster.redis import RedisCluster
from headrace.redis.connection import Redis
from headrace.testing.valkey import Valkey


@pytest.fixture(scope="session")
def redis_url(valkey: Valkey) -> str:
    return valkey.url


def prefix() -> str:
    """Return a prefix of keys that no other test uses."""
    return f"t{secrets.token_hex(6)}"


async def connect(stack: AsyncExitStack, url: str, name: str) -> RedisCluster:
    """Return the directory under a prefix, by a connection of its own."""
    cluster = RedisCluster(Redis.of(url, timeout_s=5.0, retries=3), name)
    stack.push_async_callback(cluster.close)
    return cluster
