"""Secrets go, public keys and ordinary URLs stay, and no text makes it slow."""

import time

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from headrace.model.redact import _NUMBERED, _PLAIN_SEGMENTS, HIDDEN, is_secret_name, redact, redact_url, redact_value

HEX40 = "0123456789abcdef0123456789abcdef01234567"
UUID = "8f14e45f-ceea-467f-a8f1-6d2c0a6b3f11"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJlLWhlcmU"


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        (f"https://x.helius-rpc.com/?api-key={UUID}", "https://x.helius-rpc.com/?api-key=***"),
        (f"wss://a-b.solana-mainnet.quiknode.pro/{HEX40}/", "wss://a-b.solana-mainnet.quiknode.pro/***/"),
        (f"https://solana-mainnet.g.alchemy.com/v2/{HEX40}", "https://solana-mainnet.g.alchemy.com/v2/***"),
        (f"https://x.rpcpool.com/{UUID}", "https://x.rpcpool.com/***"),
        (f"https://rpc.ankr.com/solana/{HEX40}/ws", "https://rpc.ankr.com/solana/***/ws"),
        (f"https://h/?{HEX40}", "https://h/?***"),
        (f"https://h/?a=1&token={HEX40}&b=2", "https://h/?a=1&token=***&b=2"),
        ("postgresql://u:p@host:5432/db", "postgresql://***@host:5432/db"),
        ("postgresql://u:p@ss/w@host/db", "postgresql://***@host/db"),
        ("redis://:pw@host/0 and redis://a:b@h", "redis://***@host/0 and redis://***@h"),
        ("ws://one/,ws://u:p@two/", "ws://one/,ws://***@two/"),
        (
            f"ws://one/{HEX40},ws://long-host-name-number-2.example/",
            "ws://one/***,ws://long-host-name-number-2.example/",
        ),
        ("https://h/v2/abc123", "https://h/v2/***"),
        ("at wss://h/aB, then", "at wss://h/***, then"),
        ("https://h/?k=short&limit=5&verbose=true", "https://h/?k=***&limit=5&verbose=true"),
        ("https://h/?key=12345", "https://h/?key=***"),
        ("https://h/?short", "https://h/?***"),
        ("https://h/#access_token=x", "https://h/#access_token=***"),
        ("ws://h/ws?subscriptions=trades:pump&ticket=t", "ws://h/ws?subscriptions=trades:pump&ticket=***"),
        ("connect(password='hun ter', x=1)", "connect(password=***, x=1)"),
        ('{"api_key": "abc", "x": 1}', '{"api_key": ***, "x": 1}'),
        ("Authorization: Bearer abc.def", "Authorization: ***"),
        ("sent bearer abc.def there", "sent bearer *** there"),
        (f"token {JWT} refused", "token *** refused"),
    ],
)
def test_hidden(text: str, redacted: str) -> None:
    assert redact(text) == redacted
    assert redact(redacted) == redacted


@pytest.mark.parametrize(
    ("url", "redacted"),
    [
        ("wss://api.mainnet-beta.solana.com", "wss://api.mainnet-beta.solana.com"),
        ("ws://127.0.0.1:8900/", "ws://127.0.0.1:8900/"),
        ("https://solana-mainnet.g.alchemy.com/v2/k", "https://solana-mainnet.g.alchemy.com/v2/***"),
        ("https://rpc.ankr.com/solana/letters", "https://rpc.ankr.com/solana/***"),
        ("https://h/abcdefgh/ws", "https://h/***/ws"),
        ("https://h/a%2Fb", "https://h/***"),
        ("https://h/a;b=c", "https://h/***;***"),
        ("https://h/?api-key=x&limit=5", "https://h/?api-key=***&limit=***"),
        ("https://h?x", "https://h?***"),
        ("https://h/#x", "https://h/#***"),
        ("https://h/?a=b#c", "https://h/?a=***#***"),
        ("https://u:p@h/", "https://***@h/"),
        ("https://u@h/", "https://***@h/"),
        ("https://u:p@ss/w@h/", "https://***@h/"),
        ("https://issuer.example/.well-known/jwks.json", "https://issuer.example/.well-known/jwks.json"),
        (
            "https://issuer.example/realms/mine/protocol/openid-connect/certs",
            "https://issuer.example/realms/***/protocol/openid-connect/certs",
        ),
        ("not a url, password=x", "not a url, password=***"),
    ],
)
def test_of_a_url_nothing_that_could_be_a_key_is_shown(url: str, redacted: str) -> None:
    assert redact_url(url) == redacted
    assert redact_url(redacted) == redacted


@given(
    st.text(st.characters(categories=["Ll", "Lu", "Nd"], max_codepoint=127), min_size=1, max_size=15),
    st.sampled_from(
        [
            "https://h/{}",
            "wss://h/v2/{}/",
            "https://h/?{}",
            "https://h/?x={}",
            "https://{}@h/",
            "https://u:{}@h/",
            "https://h/solana/{}?a=b",
            "https://h/#{}",
            "https://h/?a=b&c={}",
        ]
    ),
)
def test_a_key_of_any_length_at_any_place_is_hidden(key: str, form: str) -> None:
    assume(key not in redact_url(form.format("")) and key not in _PLAIN_SEGMENTS and not _NUMBERED.fullmatch(key))
    assert key not in redact_url(form.format(key)).replace(HIDDEN, "")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ws://127.0.0.1:8900/",
        "wss://api.mainnet-beta.solana.com",
        "https://api.mainnet-beta.solana.com/health?verbose=true&limit=5",
        "https://docs.example.org/token-metadata-service/index.html#install",
        "5VERv8NMvzbJMEkV8xnrLkEaWRtSz9CosKDYjCJjBRnbJLgp8uirBgmQpjKhoR4tjF3ZpRzrFmBV6UjKdiSZkQUW",
        "trades:6EF8rrecthR5Dkzon8Nwu78hRvfCKubJ14M5uBEwF6P",
        "mint=So11111111111111111111111111111111111111112 & more",
        "core.api_key: got *** (from environment), expected text",
    ],
)
def test_kept(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize(
    "name", ["password", "db_passwd", "API-KEY", "apiKey", "x_token", "jwt", "private_key", "auth_token"]
)
def test_secret_names(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize("name", ["token_program", "mint", "signature", "keys", "passed", "ticker", "author", "secs"])
def test_ordinary_names(name: str) -> None:
    assert not is_secret_name(name)


@pytest.mark.parametrize(
    "piece", ["a", "?", "&a", "://", "@", "=", "a://", "key=", "password ", "eyJ", "bearer ", ",a://", "/", "'"]
)
def test_long_text_takes_linear_time(piece: str) -> None:
    """64 times the text takes some 64 times the work, where a quadratic pattern would take 4096 times as much.

    Measured is the processor's time, of the best of some laps: what else runs on the machine does not count, and
    between the two lies a factor of eight to either side.
    """

    def best_s(length: int) -> float:
        text = "https://x" + piece * (length // len(piece))
        laps = []
        for _ in range(5):
            start = time.thread_time()
            redact(text)
            laps.append(time.thread_time() - start)
        return min(laps)

    assert best_s(64_000) < 512 * best_s(1_000)


@given(st.text(max_size=300))
def test_any_text_is_accepted(text: str) -> None:
    redact(text)


nested = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=30,
)


@given(nested)
def test_any_value_becomes_plain(value: object) -> None:
    def plain(value: object) -> bool:
        if isinstance(value, dict):
            return all(isinstance(key, str) and plain(item) for key, item in value.items())
        if isinstance(value, list):
            return all(map(plain, value))
        return value is None or isinstance(value, bool | int | float | str)

    assert plain(redact_value(value))


def test_depth_and_length_are_bounded() -> None:
    endless: list[object] = []
    endless.append(endless)
    assert redact_value(endless) == [[[[[["…"]]]]]]
    assert len(redact_value("x" * 1_000_000)) < 17_000
    assert len(redact_value(list(range(1000)))) == len(redact_value(dict.fromkeys(range(1000)))) == 256
