"""Issuers that change their keys, stall, lie and go away: nobody waits for long, nobody is let in by mistake."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from headrace.gateway.auth.jwks import read_keys
from headrace.gateway.auth.keys import KEPT_S, from_url
from headrace.gateway.auth.settings import AuthSettings
from headrace.model.errors import BadInputError, ConfigError
from headrace.model.identity import Identity
from tests.gateway.auth.checking import Checker, open_checker
from tests.gateway.issuer import AUDIENCE, Issuer, ec_key, issuer, jwk, rsa_key

ONE, TWO = rsa_key("one"), rsa_key("two")
RS256: Final = AuthSettings(mode="rs256", jwks_url="http://127.0.0.1:9/", jwt_audience=AUDIENCE, jwks_timeout_s=1.0)


def signed(opened: Checker, key: Any, kid: str | None, **more: Any) -> str:
    header = {} if kid is None else {"kid": kid}
    return opened.token(**{"algorithm": "RS256", "key": key, "header": header, "aud": AUDIENCE, **more})


@asynccontextmanager
async def trusted(*keys: dict[str, Any], **more: Any) -> AsyncIterator[tuple[Issuer, Checker]]:
    """A checker that trusts an issuer with these keys, and has looked once."""
    async with issuer() as served:
        served.publish(*keys)
        async with open_checker(msgspec.structs.replace(RS256, jwks_url=served.url, **more)) as opened:
            await looked(opened)
            yield served, opened


async def looked(opened: Checker) -> None:
    async with asyncio.timeout(30):
        while "auth" not in opened.health.components():  # noqa: ASYNC110  (the board tells nobody)
            await asyncio.sleep(0.001)


async def test_a_key_is_found_by_its_name_and_kept() -> None:
    async with trusted(jwk(ONE, "k1"), jwk(TWO, "k2")) as (served, opened):
        for _ in range(5):
            assert isinstance(await opened.show(signed(opened, ONE, "k1")), Identity)
            assert isinstance(await opened.show(signed(opened, TWO, "k2")), Identity)
        assert await opened.show(signed(opened, TWO, "k1")) == 101
        assert await opened.show(signed(opened, ONE, None)) == 101  # two keys: it must say which
        assert served.requests == 1
        assert opened.health.components()["auth"].ready


async def test_the_only_key_needs_no_name() -> None:
    async with trusted(jwk(ONE, None)) as (_, opened):
        assert isinstance(await opened.show(signed(opened, ONE, None)), Identity)


async def test_an_es256_key_is_accepted_and_an_rsa_key_refused() -> None:
    keys = (jwk(ec_key("e"), "k1"), jwk(ONE, "k2"))
    async with trusted(*keys, mode="es256") as (_, opened):
        good = opened.token(algorithm="ES256", key=ec_key("e"), header={"kid": "k1"}, aud=AUDIENCE)
        assert isinstance(await opened.show(good), Identity)
        assert await opened.show(signed(opened, ONE, "k2")) == 101


async def test_a_new_key_is_fetched_at_most_once_in_ten_seconds() -> None:
    async with trusted(jwk(ONE, "k1")) as (served, opened):
        served.publish(jwk(TWO, "k2"))
        new = signed(opened, TWO, "k2")
        assert await opened.show(new) == 108  # looked a moment ago
        await opened.clock.advance(10)
        assert isinstance(await opened.show(new), Identity)
        assert await opened.show(signed(opened, ONE, "k1")) == 108  # withdrawn, or not: it looked a moment ago
        await opened.clock.advance(10)
        assert await opened.show(signed(opened, ONE, "k1")) == 101
        assert served.requests == 3


async def test_a_withdrawn_key_is_refused_after_the_next_reading() -> None:
    async with trusted(jwk(ONE, "k1"), jwk(TWO, "k2")) as (served, opened):
        served.publish(jwk(TWO, "k2"))
        await opened.clock.advance(599)
        assert isinstance(await opened.show(signed(opened, ONE, "k1")), Identity)
        await opened.clock.advance(1)
        async with asyncio.timeout(30):
            while isinstance(await opened.show(signed(opened, ONE, "k1")), Identity):  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        assert served.requests == 2


async def test_many_unknown_keys_cause_one_reading() -> None:
    async with trusted(jwk(ONE, "k1")) as (served, opened):
        await opened.clock.advance(10)
        forged = [opened.show(signed(opened, TWO, f"x{n}")) for n in range(50)]
        assert await asyncio.gather(*forged) == [101] * 50
        assert [await opened.show(signed(opened, TWO, f"y{n}")) for n in range(50)] == [108] * 50
        assert isinstance(await opened.show(signed(opened, ONE, "k1")), Identity)
        assert served.requests == 2


async def test_a_stalled_issuer_does_not_delay_known_keys() -> None:
    async with trusted(jwk(ONE, "k1")) as (served, opened):
        served.stall()
        await opened.clock.advance(10)
        waiting = asyncio.gather(*[opened.show(signed(opened, TWO, "k2")) for _ in range(20)])
        await asyncio.sleep(0)
        for _ in range(20):
            assert isinstance(await opened.show(signed(opened, ONE, "k1")), Identity)
        assert not waiting.done()
        assert await waiting == [108] * 20
        assert served.requests == 2
        served.publish(jwk(TWO, "k2"))
        await opened.clock.advance(10)  # it tries again by itself
        await opened.clock.advance(10)
        assert isinstance(await opened.show(signed(opened, TWO, "k2")), Identity)


async def test_a_cancelled_wait_cancels_no_other() -> None:
    async with trusted(jwk(ONE, "k1")) as (served, opened):
        served.stall()
        await opened.clock.advance(10)
        first, second = (asyncio.create_task(opened.show(signed(opened, TWO, "k2"))) for _ in range(2))
        await asyncio.sleep(0)  # both wait now
        first.cancel()
        assert await second == 108


LIES: Final = {
    "not JSON": b"<html>sign in</html>",
    "no set": b"[]",
    "no keys": b'{"keys":[]}',
    "keys of another shape": b'{"keys":{"k2":1}}',
    "deep": b'{"keys":' + b"[" * 100_000,
    "a secret": json.dumps({"keys": [{"kty": "oct", "kid": "k2", "k": "c2VjcmV0" * 8}]}).encode(),
    "too large": b'{"keys":[' + b" " * 300_000 + b"]}",
}


@pytest.mark.parametrize("body", LIES.values(), ids=LIES.keys())
async def test_a_malformed_key_set_changes_nothing(body: bytes) -> None:
    async with trusted(jwk(ONE, "k1")) as (served, opened):
        served.say(body)
        await opened.clock.advance(10)
        assert await opened.show(signed(opened, TWO, "k2")) == 108
        assert isinstance(await opened.show(signed(opened, ONE, "k1")), Identity)
        assert opened.health.components()["auth"].ready


@pytest.mark.parametrize(
    ("status", "more"),
    [
        ("500 Oops", ""),
        ("404 Not Found", ""),
        ("302 Found", "Location: http://127.0.0.1:9/\r\n"),
        ("200 OK", "Content-Encoding: gzip\r\n"),
    ],
)
async def test_keys_of_any_answer_but_a_plain_200_are_not_used(status: str, more: str) -> None:
    async with issuer() as served:
        keys = json.dumps({"keys": [jwk(TWO, "k2")]}).encode()
        served.say(b"\x1f\x8b" + keys if "gzip" in more else keys, status, more)
        async with open_checker(msgspec.structs.replace(RS256, jwks_url=served.url)) as opened:
            await looked(opened)
            assert await opened.show(signed(opened, TWO, "k2")) == 108
            assert not opened.health.components()["auth"].ready
            assert served.requests == 1


async def test_a_failed_reading_is_tried_again() -> None:
    async with trusted(jwk(ONE, "k1")) as (served, opened):
        served.say(b"", "503 Busy")
        await opened.clock.advance(600)
        for expected in (2, 3, 4):
            async with asyncio.timeout(30):
                while served.requests < expected:
                    await asyncio.sleep(0.001)
                    await opened.clock.advance(1)
        assert opened.clock.monotonic() < 700  # before it would look anyway


def test_no_more_is_read_than_a_key_set_may_have() -> None:
    """On a loop of its own, which ends with what httpx still does to drop the rest."""

    async def read() -> int:
        async with issuer() as served:
            served.say(b"x" * 5_000_000)
            return len(await from_url(served.url)())

    assert asyncio.run(read()) < 1_000_000


async def test_an_unreachable_issuer_is_unavailable() -> None:
    async with open_checker(RS256) as opened:
        assert await opened.show(signed(opened, TWO, "k2")) == 108
        shown = opened.health.components()["auth"]
        assert (shown.ready, shown.detail) == (False, "the issuer's keys can't be had")  # no address, no system's text


async def test_keys_that_can_not_be_looked_at_again_are_dropped_in_the_end() -> None:
    async with trusted(jwk(ONE, "k1"), jwks_refresh_s=86_400) as (served, opened):
        served.say(b"", "503 Gone")
        await opened.clock.advance(KEPT_S)
        assert isinstance(await opened.show(signed(opened, ONE, "k1")), Identity)
        await opened.clock.advance(1)
        assert await opened.show(signed(opened, ONE, "k1")) == 108


async def test_a_key_file_is_read_at_start_and_after_changes(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    file.write_text(json.dumps({"keys": [jwk(ONE, "k1")]}))
    settings = msgspec.structs.replace(RS256, jwks_url=None, jwks_file=file)
    async with open_checker(settings) as opened:
        assert isinstance(await opened.show(signed(opened, ONE, "k1")), Identity)
        file.write_text(json.dumps({"keys": [jwk(TWO, "k2")]}))
        async with asyncio.timeout(30):
            while len(opened.clock._sleepers) < 2:  # noqa: ASYNC110  (the look that follows the start is over)
                await asyncio.sleep(0.001)
        await opened.clock.advance(20)
        assert isinstance(await opened.show(signed(opened, TWO, "k2")), Identity)


@pytest.mark.parametrize("text", [None, "{}", '{"keys":[]}'])
async def test_a_key_file_without_keys_stops_the_start(tmp_path: Path, text: str | None) -> None:
    file = tmp_path / "keys.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ConfigError, match="JWKS_FILE"):
        async with open_checker(msgspec.structs.replace(RS256, jwks_url=None, jwks_file=file)):
            pass


def keys_of(*entries: Any, algorithm: Any = "RS256") -> set[str | None]:
    try:
        return set(read_keys(json.dumps({"keys": entries}).encode(), algorithm))
    except BadInputError:
        return set()


RSA: Final = jwk(ONE, "k")
EC: Final = jwk(ec_key("e"), "k")


@pytest.mark.parametrize(
    "entry",
    [
        {**RSA, "use": "enc"},
        {**RSA, "alg": "RS512"},
        {**RSA, "alg": "HS256"},
        {**RSA, "kty": "oct", "k": "eA"},
        {**RSA, "d": "eA"},
        {**RSA, "k": "eA"},
        {**RSA, "kid": 7},
        {**RSA, "e": "AQABAQABAQAB"},
        {**RSA, "e": "AA"},
        {**RSA, "e": ""},
        {**RSA, "n": "AQAB"},
        {**RSA, "n": "A" * 100_000},
        {**RSA, "n": "*" * 342},
        {"kty": "RSA", "kid": "k"},
        {"kid": "k"},
        jwk(rsa_key("small", 1024), "k"),
        EC,
        "k",
        None,
        [],
        7,
    ],
)
def test_entries_that_are_no_key_for_rs256(entry: Any) -> None:
    assert keys_of(entry) == set()
    assert keys_of(entry, jwk(TWO, "good")) == {"good"}


@pytest.mark.parametrize(
    "entry", [{**EC, "crv": "P-384"}, {**EC, "crv": "secp256k1"}, {**EC, "x": EC["y"]}, {**EC, "x": ""}, RSA]
)
def test_entries_that_are_no_key_for_es256(entry: Any) -> None:
    assert keys_of(EC, algorithm="ES256") == {"k"}
    assert keys_of(entry, algorithm="ES256") == set()


def test_a_kid_of_two_keys_names_none() -> None:
    assert keys_of(jwk(ONE, "k"), jwk(TWO, "k"), jwk(TWO, "other")) == {"other"}
    assert keys_of(jwk(ONE, None), jwk(TWO, None), jwk(TWO, "other")) == {"other"}
    assert keys_of(*[jwk(ONE, f"k{n}") for n in range(300)]) == {f"k{n}" for n in range(256)}


async def test_a_key_file_is_read_again_on_reload(tmp_path: Path) -> None:
    """At once, whatever rest a look at an issuer needs; a file that is broken changes nothing."""
    file = tmp_path / "keys.json"
    file.write_text(json.dumps({"keys": [jwk(ONE, "k1")]}))
    settings = msgspec.structs.replace(RS256, jwks_url=None, jwks_file=file, jwks_rest_s=3600)
    async with open_checker(settings) as opened:
        assert await opened.show(signed(opened, TWO, "k2")) in (101, 108)
        file.write_text(json.dumps({"keys": [jwk(TWO, "k2")]}))
        await opened.auth.reload()
        assert isinstance(await opened.show(signed(opened, TWO, "k2")), Identity)
        assert await opened.show(signed(opened, ONE, "k1")) == 108
        file.write_text("nonsense")
        await opened.auth.reload()
        assert isinstance(await opened.show(signed(opened, TWO, "k2")), Identity)
