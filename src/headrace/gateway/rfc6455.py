"""`websockets`' protocol core, stricter in two things: what a close says, and how a length is written."""

from collections.abc import Callable, Generator, Sequence
from typing import Final, TypeAlias

from websockets.exceptions import ProtocolError
from websockets.protocol import Protocol
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from headrace.protocol.codes import CLOSE_REASONS

SUBPROTOCOL: Final = "stream.v1"


class Core(ServerProtocol):
    """`websockets`' protocol core, stricter in two things, and for handshakes that were parsed elsewhere.

    A close frame says only what its code says: exception texts are ours to keep. And lengths must be minimal.
    """

    def __init__(self, frame_bytes_max: int) -> None:
        super().__init__(select_subprotocol=_select_subprotocol, max_size=frame_bytes_max)
        self.reader.read_exact = _minimal_lengths(self.reader.read_exact)  # type: ignore[method-assign, assignment]

    def parse(self) -> Generator[None, None, None]:
        """Frames from the start: the request is given to `accept`."""
        return Protocol.parse(self)

    def fail(self, code: int, reason: str = "") -> None:
        super().fail(code, CLOSE_REASONS.get(code, ""))


_Read: TypeAlias = Callable[[int], Generator[None, None, bytearray]]


def _minimal_lengths(read_exact: _Read) -> _Read:
    """Watch the reads of one frame after another (header, longer length if any, mask, payload) for the second one.

    "The minimal number of bytes MUST be used to encode the length", says RFC 6455 §5.2; the core takes any.
    """
    due = "header"

    def read(size: int) -> Generator[None, None, bytearray]:
        nonlocal due
        data = yield from read_exact(size)
        if due == "header":
            due = "length" if data[1] & 0x7F >= 126 else "mask"
        elif due == "length":
            length = int.from_bytes(data, "big")
            if length < (126 if size == 2 else 65536) or length >> 63:
                raise ProtocolError("length not minimal")
            due = "mask"
        else:
            due = "payload" if due == "mask" else "header"
        return data

    return read


def _select_subprotocol(_protocol: ServerProtocol, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    """`stream.v1` where the client knows it, else none: the protocol is the same."""
    return Subprotocol(SUBPROTOCOL) if SUBPROTOCOL in offered else None
