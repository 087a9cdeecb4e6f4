"""Commands, scripts and refusals against a real server."""

import pytest

from headrace.model.errors import ConfigError, TransientError
from headrace.redis.connection import Redis, Script
from headrace.testing.valkey import Valkey
from tests.redis.servers import new_prefix, started


async def test_commands_are_answered_as_sent(valkey: Valkey) -> None:
    redis, key = Redis.of(valkey.url, timeout_s=5, retries=0), new_prefix()
    assert await redis.command("SET", key, b"\x00\xff") == b"OK"
    assert await redis.command("GET", key) == b"\x00\xff"
    assert await redis.command("HGETALL", "nothing") == []
    await redis.check()
    await redis.close()


async def test_a_script_runs_although_the_server_forgot_it(valkey: Valkey) -> None:
    redis, script = Redis.of(valkey.url, timeout_s=5, retries=0), Script("return {KEYS[1], ARGV[1]}")
    for _ in range(2):
        await redis.command("SCRIPT", "FLUSH")
        assert await redis.run_all(script, ["k"], [["1"], [2]]) == [[b"k", b"1"], [b"k", b"2"]]
    await redis.close()


async def test_an_error_of_one_call_is_the_answer_to_that_call_alone(valkey: Valkey) -> None:
    redis = Redis.of(valkey.url, timeout_s=5, retries=0)
    script = Script("if ARGV[1] == '2' then return redis.error_reply('READONLY no') end return ARGV[1]")
    first, second, third = await redis.run_all(script, ["k"], [["1"], ["2"], ["3"]])
    assert (first, third) == (b"1", b"3")
    assert isinstance(second, TransientError)
    with pytest.raises(TransientError, match="ReadOnlyError: no"):
        await redis.run(script, ["k"], "2")
    await redis.close()


async def test_an_unreachable_server_is_a_transient_error_without_the_password() -> None:
    redis = Redis.of("redis://someone:hush@127.0.0.1:1/0", timeout_s=5, retries=1)
    with pytest.raises(TransientError) as caught:
        await redis.check()
    assert "hush" not in str(caught.value)
    with pytest.raises(TransientError):
        await redis.check_settings()
    await redis.close()


async def test_a_server_that_may_evict_is_refused() -> None:
    async with started(maxmemory_policy="allkeys-lru") as evicting:
        redis = Redis.of(evicting.url, timeout_s=5, retries=0)
        with pytest.raises(ConfigError, match=r"allkeys-lru.*expected noeviction"):
            await redis.check_settings()
        await redis.close()


async def test_a_wrong_password_is_a_config_error_without_the_password() -> None:
    async with started(requirepass="right") as locked:
        redis = Redis.of(f"unix://:wrong-one@{locked.path}", timeout_s=5, retries=0)
        with pytest.raises(ConfigError, match=r"REDIS_URL.*AuthenticationError") as caught:
            await redis.check_settings()
        assert "wrong-one" not in str(caught.value)
        await redis.close()
        redis = Redis.of(locked.url, timeout_s=5, retries=0)
        with pytest.raises(ConfigError, match=r"REDIS_URL.*AuthenticationError"):
            await redis.check_settings()
        await redis.close()


async def test_a_broken_connection_is_opened_again(valkey: Valkey) -> None:
    redis = Redis.of(valkey.url, timeout_s=5, retries=3)
    mine = await redis.command("CLIENT", "ID")
    other = Redis.of(valkey.url, timeout_s=5, retries=0)
    assert await other.command("CLIENT", "KILL", "ID", mine) == 1
    await other.close()
    await redis.check()
    assert await redis.command("CLIENT", "ID") != mine
    await redis.close()
