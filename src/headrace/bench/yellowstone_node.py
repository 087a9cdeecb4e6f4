"""A node that sends prepared updates as fast as they are read: HTTP/2 on a plain socket, in few frames."""

import selectors
import socket
from collections.abc import Sequence
from typing import Any, Final

from hpack import Encoder

_PREFACE: Final = 24
_DATA, _HEADERS, _SETTINGS, _PING, _WINDOW = 0, 1, 4, 6, 8
_INITIAL_WINDOW: Final = 4
_FRAME: Final = 16_384
_CHUNK: Final = 256 * 1024


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """Return one HTTP/2 frame."""
    return len(payload).to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4) + payload


def serve(messages: Sequence[bytes], count: int, ports: Any) -> None:
    """Put the port on `ports`, then send `count` messages to each client, forever. Runs in its own process."""
    listener = socket.create_server(("127.0.0.1", 0))
    ports.put(listener.getsockname()[1])
    while True:
        connection, _ = listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            _Client(connection).send(messages, count)
        except OSError:
            pass  # the client has gone
        connection.close()


class _Client:
    """One client: its credit, and the bytes that it sent that are not a complete frame yet."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._rest = b""
        self._credit = [65_535, 65_535]
        self._initial = 65_535
        self._asked = False
        self._stream = 1
        while len(self._rest) < _PREFACE:
            self._rest += self._received()
        self._rest = self._rest[_PREFACE:]
        connection.sendall(frame(_SETTINGS, 0, 0, b""))

    def send(self, messages: Sequence[bytes], count: int) -> None:
        """Send messages in turn, within the client's credit, then wait until the client disconnects."""
        while not self._asked:
            self._read()
        answer = Encoder().encode([(":status", "200"), ("content-type", "application/grpc")])
        self._connection.sendall(frame(_HEADERS, 4, self._stream, answer))
        prefixed = [b"\0" + len(message).to_bytes(4) + message for message in messages]
        frames = [
            b"".join(frame(_DATA, 0, self._stream, each[at : at + _FRAME]) for at in range(0, len(each), _FRAME))
            for each in prefixed
        ]
        sizes = [len(message) for message in prefixed]
        number = 0
        while number < count:
            out, payload, room = [], 0, min(_CHUNK, *self._credit)
            while number < count and payload + (size := sizes[number % len(sizes)]) <= room:
                out.append(frames[number % len(frames)])
                payload += size
                number += 1
            if not out:
                self._read()
                continue
            self._credit = [credit - payload for credit in self._credit]
            self._connection.sendall(b"".join(out))
            self._read_waiting()
        while True:
            self._read()

    def _received(self) -> bytes:
        data = self._connection.recv(65_536)
        if not data:
            raise OSError("the client has gone")
        return data

    def _read_waiting(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._connection, selectors.EVENT_READ)
            while selector.select(0):
                self._read()

    def _read(self) -> None:
        self._rest += self._received()
        while len(self._rest) >= 9 and len(self._rest) >= 9 + (length := int.from_bytes(self._rest[:3])):
            kind, flags, stream = self._rest[3], self._rest[4], int.from_bytes(self._rest[5:9])
            self._take(kind, flags, stream, self._rest[9 : 9 + length])
            self._rest = self._rest[9 + length :]

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == _HEADERS:
            self._stream, self._asked = stream, True
        elif kind == _SETTINGS and not flags & 1:
            for at in range(0, len(payload), 6):
                if int.from_bytes(payload[at : at + 2]) == _INITIAL_WINDOW:
                    initial = int.from_bytes(payload[at + 2 : at + 6])
                    self._credit[1] += initial - self._initial
                    self._initial = initial
            self._connection.sendall(frame(_SETTINGS, 1, 0, b""))
        elif kind == _PING and not flags & 1:
            self._connection.sendall(frame(_PING, 1, 0, payload))
        elif kind == _WINDOW:
            self._credit[1 if stream else 0] += int.from_bytes(payload)
