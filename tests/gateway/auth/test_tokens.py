"""Tokens: the right ones come in, and every way to make a wrong one is refused for its own reason."""

import base64
import json
from typing import Any, Final

import jwt
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.gateway.auth.keys import SharedSecret
from headrace.gateway.auth.settings import AuthSettings
from headrace.gateway.auth.tokens import Tokens
from headrace.model.credentials import Credential
from headrace.model.errors import BadInputError, ConfigError, RequestError
from headrace.model.identity import Identity, Permissions
from headrace.runtime.clock import ManualClock
from tests.gateway.auth.checking import NOW_S, open_checker
from tests.gateway.issuer import AUDIENCE, HS256, ISSUER, SECRET, jwk, pem, raw_token, rsa_key, token

STRICT: Final = msgspec.structs.replace(HS256, jwt_audience=AUDIENCE, jwt_issuer=ISSUER)
RIGHT: Final = {"aud": AUDIENCE, "iss": ISSUER}
NESTED: Final = b"[" * 5000 + b"]" * 5000


def made(**more: Any) -> str:
    return token(**{"now_s": NOW_S, **RIGHT, **more})


def tampered(text: str, **claims: Any) -> str:
    """The same signature over other claims."""
    header, payload, signature = text.split(".")
    known = json.loads(base64.urlsafe_b64decode(payload + "=="))
    changed = base64.urlsafe_b64encode(json.dumps({**known, **claims}).encode()).rstrip(b"=").decode()
    return f"{header}.{changed}.{signature}"


def signed(payload: bytes) -> str:
    """Well signed, whatever it says."""
    return jwt.api_jws.encode(payload, SECRET, "HS256")


REFUSED: Final = {
    "bad_signature": [
        made(key="x" * 32),
        tampered(made(), sub="admin"),
        tampered(made(), admin=True),
        made().rpartition(".")[0] + ".",
        made()[:-3],
    ],
    "wrong_algorithm": [
        made(key=None, algorithm="none"),
        raw_token(b'{"alg":"None","typ":"JWT"}', json.dumps({"sub": "42", "exp": 2**40, **RIGHT}).encode()),
        raw_token(b'{"alg":"nOnE"}', b'{"sub":"42"}'),
        raw_token(b'{"alg":""}', b"{}"),
        raw_token(b"{}", b"{}"),
        raw_token(b'{"alg":["HS256"]}', b"{}"),
        raw_token(b'{"alg":null}', b"{}"),
        made(algorithm="HS384", key=SECRET * 2),
        made(algorithm="HS512", key=SECRET * 2),
        made(algorithm="RS256", key=rsa_key("mine")),
    ],
    "wrong_audience": [
        made(aud="another"),
        made(aud=["a", "b"]),
        made(aud=7),
        made(aud=AUDIENCE.upper()),
    ],
    "wrong_issuer": [made(iss="https://evil.test/"), made(iss=ISSUER[:-1]), made(iss=7)],
    "missing_claim": [
        made(without=("exp",)),
        made(without=("sub",)),
        made(without=("aud",)),
        made(without=("iss",)),
        made(aud=[]),
        made(exp=None),
    ],
    "expired": [made(ttl_s=-6), made(ttl_s=-5), made(exp=0), made(exp=0.5)],
    "not_yet_valid": [made(nbf=NOW_S + 6), made(nbf=2**50, exp=2**51)],
    "bad_subject": [made(sub=""), made(sub="x" * 129), made(sub="ж"), made(sub="a\x00b"), made(sub="a\nb")],
    "too_long": [made(pad="x" * 8192), "x" * 8193, "a" * 1_000_000],
    "malformed": [
        "",
        ".",
        "..",
        "...",
        "a.b.c",
        "not a token",
        "é.é.é",
        "\ud800",
        "\x00" * 30,
        made() + ".x",
        made().replace(".", ""),
        "Bearer " + made(),
        raw_token(NESTED[:6000], b"{}"),
        raw_token(b'{"alg":"HS256","kid":7}', b"{}"),
        raw_token(b'{"alg":"HS256","crit":["exp"],"exp":1}', b"{}"),
        raw_token(b'{"alg":"HS256","b64":false}', b"{}"),
        raw_token(b'{"alg":"HS256"', b"{}"),
        raw_token(b"[]", b"{}"),
        raw_token(b"7", b"{}"),
        raw_token(b"\xff\xfe", b"{}"),
        made(sub=42),
        made(sub=["42"]),
        made(sub={"a": 1}),
        made(exp="1900000000"),
        made(exp=True),
        made(exp=-1),
        made(exp=2**53),
        made(exp=1e300),
        made(exp={"a": 1}),
        made(nbf="1"),
        made(nbf=None),
        made(nbf=2**50),
        made(nbf=NOW_S + 3610),
        made(topics="trades:*"),
        made(topics=[7]),
        made(topics={"trades:*": True}),
        made(topics=None),
        made(topics=["x" * 136]),
        made(topics=["a"] * 1001),
        signed(b"not JSON"),
        signed(b"[]"),
        signed(b'"42"'),
        signed(NESTED[2500:7500]),
        signed(b'{"sub":"42","exp":NaN,"aud":"%b","iss":"%b"}' % (AUDIENCE.encode(), ISSUER.encode())),
        signed(b'{"sub":"42","exp":Infinity,"aud":"%b","iss":"%b"}' % (AUDIENCE.encode(), ISSUER.encode())),
        signed(b'{"sub":"42","exp":' + b"9" * 5000 + b"}"),
    ],
}
CASES: Final = [(reason, text) for reason, texts in REFUSED.items() for text in texts]


@pytest.mark.parametrize(("reason", "text"), CASES, ids=[f"{reason}-{n}" for n, (reason, _) in enumerate(CASES)])
async def test_a_wrong_token_is_refused_and_logged_without_its_text(
    reason: str, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async with open_checker(STRICT) as opened:
        assert await opened.show(text) == {"expired": 109, "not_yet_valid": 108}.get(reason, 101)
        assert opened.outcomes() == {reason: 1}
    told = "".join(capsys.readouterr())
    assert "credential_refused" in told
    assert all(part not in told for part in text.split(".") if len(part) > 10)
    assert SECRET not in told


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"aud": [AUDIENCE, "another"]},
        {"ttl_s": -4.9},
        {"nbf": NOW_S + 5},
        {"iat": NOW_S + 1000},
        {"exp": 2**53 - 1},
        {"header": {"kid": "whatever", "typ": "at+jwt"}},
        {"sub": "auth0|5f7c8ec7c33c6c004bbafe82"},
    ],
)
async def test_a_right_token_gives_its_identity_and_is_counted(more: dict[str, Any]) -> None:
    async with open_checker(STRICT) as opened:
        identity = await opened.show(made(**more))
        assert isinstance(identity, Identity)
        assert identity.subject == more.get("sub", "42")
        assert opened.outcomes() == {"accepted": 1}


async def test_a_valid_token_gives_its_identity() -> None:
    async with open_checker() as opened:
        assert await opened.show(opened.token(topics=["trades:*"], admin=True)) == Identity(
            "42", (NOW_S + 3605) * 1000, Permissions(False, frozenset({"trades"}), frozenset({"trades:*"})), admin=True
        )
        for not_true in (False, 1, "true", [True], None):
            identity = await opened.show(opened.token(admin=not_true))
            assert isinstance(identity, Identity)
            assert not identity.admin
            assert identity.permissions.everything


async def test_a_token_is_accepted_until_it_expires() -> None:
    async with open_checker() as opened:
        text = opened.token(ttl_s=100)
        await opened.clock.advance(104.5)
        assert isinstance(await opened.show(text), Identity)
        await opened.clock.advance(0.5)
        assert await opened.show(text) == 109


async def test_without_the_claim_the_setting_counts_and_claims_may_have_other_names() -> None:
    own = msgspec.structs.replace(HS256, default_topics=("slots",), topics_claim="https://x.test/t", admin_claim="root")
    async with open_checker(own) as opened:
        for more, readable in (
            ({"topics": ["*"], "admin": True}, {"slots"}),
            ({"https://x.test/t": ["trades:pump"]}, {"trades:pump"}),
            ({"https://x.test/t": []}, set()),
        ):
            identity = await opened.show(opened.token(**more))
            assert isinstance(identity, Identity)
            assert {topic for topic in ("slots", "trades:pump") if identity.may_read(topic)} == readable
            assert not identity.admin


async def test_a_token_of_another_audience_is_refused() -> None:
    """A token with `aud` is meant for somebody, and without JWT_AUDIENCE we are nobody (RFC 7519 §4.1.3)."""
    async with open_checker() as opened:
        assert await opened.show(opened.token(aud="another")) == 101


@pytest.mark.parametrize("algorithm", ["HS256", "HS384"])
async def test_a_public_key_as_secret_is_refused(algorithm: str, tmp_path: Any) -> None:
    """The old confusion: signed by HMAC with the public key, which everybody has, as secret."""
    key = rsa_key("mine")
    file = tmp_path / "keys.json"
    file.write_text(json.dumps({"keys": [jwk(key, "k1")]}))
    settings = AuthSettings(mode="rs256", jwks_file=file, jwt_audience=AUDIENCE)
    async with open_checker(settings) as opened:
        for secret in (pem(key), pem(key).strip(), json.dumps(jwk(key, "k1")).encode()):
            header = {"alg": algorithm, "kid": "k1"}
            head, payload, _ = opened.token(aud=AUDIENCE, algorithm=algorithm, key="x" * 64, header=header).split(".")
            hmac = jwt.algorithms.HMACAlgorithm(getattr(jwt.algorithms.HMACAlgorithm, f"SHA{algorithm[2:]}"))
            mac = hmac.sign(f"{head}.{payload}".encode(), secret)
            forged = f"{head}.{payload}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"
            assert await opened.show(forged) == 101
        assert opened.outcomes() == {"wrong_algorithm": 3}
        good = opened.token(aud=AUDIENCE, algorithm="RS256", key=key, header={"kid": "k1"})
        assert isinstance(await opened.show(good), Identity)


@given(st.text(max_size=200) | st.binary(max_size=100).map(lambda data: raw_token(b'{"alg":"HS256"}', data, data)))
async def test_any_text_that_is_no_token_is_bad_input(text: str) -> None:
    clock = ManualClock()
    with pytest.raises(BadInputError):
        await Tokens(HS256, SharedSecret(SECRET), clock).verify(text)


WRONG_SETTINGS: Final[list[tuple[dict[str, Any], str]]] = [
    ({"mode": "hs256"}, "JWT_SECRET"),
    ({"mode": "hs256", "jwt_secret": "short-secret"}, "JWT_SECRET"),
    ({"mode": "hs256", "jwt_secret": pem(rsa_key("mine")).decode()}, "JWT_SECRET"),
    ({"mode": "rs256", "jwt_audience": "a"}, "JWKS_URL"),
    ({"mode": "es256", "jwt_audience": "a", "jwks_url": "https://a.test/", "jwks_file": "keys"}, "JWKS_URL"),
    ({"mode": "rs256", "jwks_url": "https://a.test/"}, "JWT_AUDIENCE"),
]


@pytest.mark.parametrize(("given", "key"), WRONG_SETTINGS)
def test_settings_that_do_not_go_together_are_refused_without_their_secrets(given: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError) as refused:
        AuthSettings(**given)
    assert key in refused.value.key
    assert "short-secret" not in str(refused.value)
    assert "BEGIN" not in str(refused.value)


def test_the_secret_is_in_no_repr() -> None:
    assert SECRET not in repr((HS256, SharedSecret(SECRET), Credential("token", SECRET)))


async def test_while_secrets_are_exchanged_tokens_of_both_count() -> None:
    old = "the-secret-that-was-in-use-until-today-0123"
    both = AuthSettings(mode="hs256", jwt_secret=SECRET, jwt_secret_previous=old)
    async with open_checker(both) as there:
        for key in (SECRET, old):
            assert isinstance(await there.show(there.token(key=key)), Identity)
        assert await there.show(there.token(key="x" * 32)) == 101
        assert await there.show(there.token(key=old, ttl_s=-60)) == 109
        assert await there.show(there.token(ttl_s=-60)) == 109
        assert there.outcomes() == {"accepted": 2, "bad_signature": 1, "expired": 2}
    async with open_checker(HS256) as there:
        assert await there.show(there.token(key=old)) == 101


def test_an_unsafe_previous_secret_is_refused() -> None:
    with pytest.raises(ConfigError, match="JWT_SECRET_PREVIOUS: got a shorter one") as refused:
        AuthSettings(mode="hs256", jwt_secret=SECRET, jwt_secret_previous="hush")
    assert "hush" not in str(refused.value)


@pytest.mark.parametrize(
    ("leeway_s", "nbf", "ttl_s", "outcome"),
    [
        (30, NOW_S + 15, 900, "accepted"),  # an issuer whose clock is 15 s ahead, with nbf = iat
        (30, NOW_S + 30, 900, "accepted"),
        (30, NOW_S + 31, 900, "not_yet_valid"),
        (30, NOW_S - 900, -29, "accepted"),
        (30, NOW_S - 900, -30, "expired"),
        (0, NOW_S, 900, "accepted"),
        (0, NOW_S + 1, 900, "not_yet_valid"),
        (0, NOW_S - 900, 0, "expired"),
    ],
)
async def test_clocks_may_differ_by_the_leeway(leeway_s: float, nbf: int, ttl_s: float, outcome: str) -> None:
    settings = msgspec.structs.replace(STRICT, leeway_s=leeway_s)
    async with open_checker(settings) as opened:
        await opened.show(made(nbf=nbf, ttl_s=ttl_s))
        assert opened.outcomes() == {outcome: 1}


def test_the_leeway_is_half_a_minute_by_default() -> None:
    assert AuthSettings().leeway_s == 30


@pytest.mark.parametrize(("nbf", "wait_ms"), [(NOW_S + 6, 1000), (NOW_S + 20, 15_000), (NOW_S + 10**6, 3_600_000)])
async def test_a_token_not_yet_valid_is_refused_with_the_wait(nbf: int, wait_ms: int) -> None:
    async with open_checker(STRICT) as opened:
        with pytest.raises(RequestError) as refused:
            await opened.auth.identify(Credential("token", made(nbf=nbf, ttl_s=10**7)))
    assert (refused.value.code, refused.value.temporary, refused.value.retry_after_ms) == (108, True, wait_ms)


@pytest.mark.parametrize("more", [{"sub": ""}, {"aud": "another"}, {"key": "x" * 32}, {"topics": "trades:*"}])
async def test_a_token_not_yet_valid_and_wrong_is_refused_for_good(more: dict[str, Any]) -> None:
    async with open_checker(STRICT) as opened:
        assert await opened.show(made(nbf=NOW_S + 60, **more)) == 101
