"""Bytes in JSON: the encodings agree with reference libraries and refuse everything else, within bounds."""

import based58
import pybase64
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from headrace.model.errors import BadInputError
from headrace.solana.encodings import bytes_of, from_base58

LIMIT = 4096


@given(st.binary(max_size=600), st.integers(0, 3))
def test_base58_of_any_length_as_the_library_has_it(raw: bytes, zeros: int) -> None:
    raw = bytes(zeros) + raw
    text = based58.b58encode(raw).decode() if raw else ""
    assert from_base58(text, size_max=LIMIT) == raw


@given(st.binary(max_size=LIMIT))
def test_every_encoding_gives_the_same_bytes(raw: bytes) -> None:
    packed = pybase64.b64encode_as_string(zstandard.compress(raw))
    assert bytes_of([pybase64.b64encode_as_string(raw), "base64"], size_max=LIMIT) == raw
    assert bytes_of([packed, "base64+zstd"], size_max=LIMIT) == raw


def _frame(raw: bytes, *, declares_size: bool = True) -> str:
    packer = zstandard.ZstdCompressor(write_content_size=declares_size).compressobj(
        size=len(raw) if declares_size else -1
    )
    return pybase64.b64encode_as_string(packer.compress(raw) + packer.flush())


def test_base58_is_bounded_where_the_bytes_may_be_many() -> None:
    with pytest.raises(BadInputError, match="at most 10240 bytes"):
        bytes_of("2" * 1_000_000, size_max=10 * 1024 * 1024)


def test_bytes_that_do_not_shrink_may_use_the_whole_bound() -> None:
    raw = bytes((n * n * 31 + n * 7) % 251 for n in range(LIMIT))
    packed = zstandard.ZstdCompressor(level=1).compress(raw)
    assert bytes_of([pybase64.b64encode_as_string(packed), "base64+zstd"], size_max=LIMIT) == raw


def test_a_frame_without_declared_size_is_read() -> None:
    assert bytes_of([_frame(b"ab" * 50, declares_size=False), "base64+zstd"], size_max=LIMIT) == b"ab" * 50


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        (None, "bad_encoding"),
        ([], "bad_encoding"),
        (["AA==", "base64", "more"], "bad_encoding"),
        (["AA==", 64], "bad_encoding"),
        (["AA==", "base32"], "bad_encoding"),
        (["A", "base64"], "bad_base64"),
        (["AA=", "base64"], "bad_base64"),
        (["A A==", "base64"], "bad_base64"),
        (["_-==", "base64"], "bad_base64"),
        (["AAé=", "base64"], "bad_base64"),
        (["A" * (LIMIT * 2), "base64"], "too_large"),
        (["0OIl", "base58"], "bad_base58"),
        ("0" * 200, "bad_base58"),
        ("é" * 200, "bad_base58"),
        ("2" * (LIMIT * 2), "too_large"),
        (["AAAA", "base64+zstd"], "bad_zstd"),
        (["", "base64+zstd"], "bad_zstd"),
    ],
)
def test_bytes_that_break_their_encoding_are_refused(written: object, reason: str) -> None:
    with pytest.raises(BadInputError) as caught:
        bytes_of(written, size_max=LIMIT)
    assert caught.value.reason == reason


@pytest.mark.parametrize(("declares_size", "reason"), [(True, "too_large"), (False, "bad_zstd")])
def test_a_zstd_bomb_is_refused_before_it_unfolds(declares_size: bool, reason: str) -> None:
    bomb = _frame(bytes(50_000_000), declares_size=declares_size)
    assert len(bomb) < 8000
    with pytest.raises(BadInputError) as caught:
        bytes_of([bomb, "base64+zstd"], size_max=LIMIT * 2)
    assert caught.value.reason == reason


@pytest.mark.parametrize("spoil", [lambda frame: frame[:-3], lambda frame: frame + b"more"])
def test_a_zstd_frame_is_whole_and_alone(spoil: object) -> None:
    assert callable(spoil)
    text = pybase64.b64encode_as_string(spoil(zstandard.compress(b"whole" * 40)))
    with pytest.raises(BadInputError) as caught:
        bytes_of([text, "base64+zstd"], size_max=LIMIT)
    assert caught.value.reason == "bad_zstd"
