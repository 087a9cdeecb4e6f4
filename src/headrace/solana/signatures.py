"""Tells transaction signatures from other texts: 64 bytes in base58, not all of them zero. Pure."""

from typing import Final

from headrace.model.base58 import b58decode, b58encode

SIZE: Final = 64
_ZEROS: Final = "1" * SIZE
_LARGEST: Final = b58encode(b"\xff" * SIZE)
_CHARACTERS_MAX: Final = len(_LARGEST)


def is_signature(text: str) -> bool:
    """Return whether `text`, all of it of the base58 alphabet, can be a transaction's signature.

    The alphabet is in ASCII order, so nearly every text is judged by its length and a comparison of texts (0.1 µs);
    only the rest is decoded. 64 zero bytes are an unset field.
    """
    size = len(text)
    if size == _CHARACTERS_MAX and text[0] != "1":
        return text <= _LARGEST
    if size == _CHARACTERS_MAX - 1 and text[0] > "2":
        return True
    if not SIZE <= size <= _CHARACTERS_MAX or text == _ZEROS:
        return False
    try:
        return len(b58decode(text)) == SIZE
    except ValueError:
        return False
