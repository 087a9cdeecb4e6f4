"""A WebSocket connection to a node that may be hostile: no redirects, no floods of frames, pieces or pings.

`websockets` limits the bytes of a message. This module limits everything else with which a peer can fill memory or
block the loop.
"""

from typing import Final

from websockets.asyncio.client import ClientConnection, connect
from websockets.frames import DATA_OPCODES, CloseCode, Frame
from websockets.protocol import Event

SLICE_BYTES: Final = 8_192
"""Maximum number of bytes passed to the parser at once.

One read may bring 256 kB in frames of two bytes, which take two seconds.
"""
FRAME_BYTES_MIN: Final = 16
"""Minimum number of bytes per frame, on average over a slice; fewer are a flood.

The shortest notification has a hundred.
"""
FRAMES_SPARE: Final = 64
PIECES_MAX: Final = 1_024
"""Maximum number of frames in a message. Each costs 300 bytes until the last has come, even if it contains one byte."""
UNSENT_BYTES_MAX: Final = 1024 * 1024
"""Maximum number of bytes of unsent pongs, for a peer that sends pings and reads nothing."""


class BoundedWebSocket(ClientConnection):
    """Closes the connection with 1008 if the peer floods, with 1009 if a message has too many pieces."""

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
        """Close without a handshake, because otherwise the peer could continue to flood until it answers."""
        self.protocol.fail(code, reason)
        self.transport.abort()


class ConnectStraight(connect):
    """Connects to the given URL only. A redirect counts as a refusal, because the key in the URL is for that node."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc
