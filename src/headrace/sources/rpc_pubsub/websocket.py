"""A WebSocket connection to a node that may be hostile: no redirects, no floods of frames, pieces or pings.

`websockets` bounds a message's bytes; what else a peer can make grow, or do to the loop, is bounded here.
"""

from typing import Final

from websockets.asyncio.client import ClientConnection, connect
from websockets.frames import DATA_OPCODES, CloseCode, Frame
from websockets.protocol import Event

SLICE_BYTES: Final = 8_192
"""Bytes handed to the parser at once: 256 kB of frames of two bytes each, as one read may bring, take two seconds."""
FRAME_BYTES_MIN: Final = 16
"""Fewer bytes a frame, on average over a slice, are a flood: the shortest notification has a hundred."""
FRAMES_SPARE: Final = 64
PIECES_MAX: Final = 1_024
"""Frames of one message. Each costs 300 bytes until the last has come, even with one byte in it."""
UNSENT_BYTES_MAX: Final = 1024 * 1024
"""Pongs that wait because the peer sends pings and reads nothing."""


class BoundedWebSocket(ClientConnection):
    """Close the connection with 1008 for a peer that floods, with 1009 for a message in too many pieces."""

    _frames = 0
    _pieces = 0

    def data_received(self, data: bytes) -> None:
        for start in range(0, len(data), SLICE_BYTES):
            part = data[start : start + SLICE_BYTES]
            self._frames = 0
            super().data_received(part)
            if self._frames > FRAMES_SPARE + len(part) // FRAME_BYTES_MIN:
                self._give_up(CloseCode.POLICY_VIOLATION, f"{self._frames} frames in {len(part)} bytes")
            if self.transport.get_write_buffer_size() > UNSENT_BYTES_MAX:
                self._give_up(CloseCode.POLICY_VIOLATION, "pings, and nobody reads the pongs")
            if self.transport.is_closing():
                return

    def process_event(self, event: Event) -> None:
        if isinstance(event, Frame):
            self._frames += 1
            if event.opcode in DATA_OPCODES:
                self._pieces = 0 if event.fin else self._pieces + 1
                if self._pieces > PIECES_MAX:
                    self._give_up(CloseCode.MESSAGE_TOO_BIG, f"a message in more than {PIECES_MAX} pieces")
                    return
        super().process_event(event)

    def _give_up(self, code: int, reason: str) -> None:
        """Close without a handshake: the peer would go on flooding until it answers."""
        self.protocol.fail(code, reason)
        self.transport.abort()


class ConnectStraight(connect):
    """A connection to the given URL alone: a redirect counts as a refusal, as the key in the URL is for that node."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc
