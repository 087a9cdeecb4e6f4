"""Splits the bytes of a WebSocket server into frames, for load clients that must be fast."""

from collections.abc import Iterator


class ServerFrames:
    """The bytes received and not yet read.

    No frame is masked, fragmented or compressed, because the client requested none of this.
    """

    __slots__ = ("_buffer", "_open")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._open = False

    def take(self, data: bytes, most: int | None = None) -> Iterator[bytearray]:
        """Yield the complete payloads after the answer to the handshake, at most `most` bytes of each."""
        buffer = self._buffer
        buffer += data
        if not self._open:
            end = buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            del buffer[: end + 4]
            self._open = True
        at, have = 0, len(buffer)
        while have - at >= 2:
            length, head = buffer[at + 1], 2
            if length >= 126:
                head = 4 if length == 126 else 10
                length = int.from_bytes(buffer[at + 2 : at + head], "big")
            begin = at + head
            if begin + length > have:
                break
            yield buffer[begin : begin + (length if most is None else min(length, most))]
            at = begin + length
        del buffer[:at]
