"""Reads a stream without grpcio: a socket feeds the HTTP/2 state machine of `http2.py`."""

import asyncio
import ssl
from typing import Final, Self, cast
from urllib.parse import urlsplit

from headrace import __version__
from headrace.runtime.clock import Clock
from headrace.sources.yellowstone.compression import ENCODINGS
from headrace.sources.yellowstone.endings import WireEnd
from headrace.sources.yellowstone.http2 import Http2Call, request_headers
from headrace.sources.yellowstone.settings import YellowstoneSettings

_PORTS: Final = {"http": 80, "https": 443}


class OwnWire(asyncio.Protocol):
    """Subscription on a socket. The credit given to the node bounds the bytes that wait here."""

    def __init__(self, call: Http2Call, settings: YellowstoneSettings, clock: Clock) -> None:
        self._call, self._settings, self._clock = call, settings, clock
        self._transport: asyncio.Transport | None = None
        self._changed = asyncio.Event()
        self._heard_at = clock.monotonic()

    @classmethod
    async def open(cls, url: str, settings: YellowstoneSettings, clock: Clock) -> Self:
        """Connect and begin the call. Raises WireEnd if connecting fails, or the node ends the call at once."""
        parts = urlsplit(url)
        secure, host = parts.scheme == "https", parts.hostname or ""
        tls = await asyncio.to_thread(_tls, settings.ca_file) if secure else None
        headers = request_headers(
            parts.netloc.rpartition("@")[2],
            secure=secure,
            x_token=settings.x_token,
            encodings=ENCODINGS[settings.compression],
            user_agent=f"headrace/{__version__}",
        )
        call = Http2Call(headers, window=settings.waiting_bytes_max, message_max=settings.message_bytes_max)
        wire = cls(call, settings, clock)
        try:
            async with asyncio.timeout(settings.connect_timeout_s):
                await asyncio.get_running_loop().create_connection(
                    lambda: wire, host, parts.port or _PORTS[parts.scheme], ssl=tls
                )
                while not call.ready and call.end is None:
                    await wire._change()
        except TimeoutError:
            await wire.close()
            raise WireEnd("UNAVAILABLE", "no connection in time") from None
        except OSError as error:
            raise WireEnd("UNAVAILABLE", str(error)) from None
        except BaseException:
            await wire.close()
            raise
        if call.end is not None:
            await wire.close()
            raise call.end
        return wire

    # The socket's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to send. End the call if the node agreed on a protocol other than HTTP/2."""
        self._transport = cast(asyncio.Transport, transport)
        secured = transport.get_extra_info("ssl_object")
        if secured is not None and secured.selected_alpn_protocol() not in ("h2", None):
            self._call.eof("the node speaks no HTTP/2")
        self._flush()

    def data_received(self, data: bytes) -> None:
        """Process bytes from the node."""
        self._heard_at = self._clock.monotonic()
        self._call.feed(data)
        self._flush()
        self._changed.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """Note that the socket is closed."""
        self._call.eof(str(exc) if exc is not None else "the connection was closed")
        self._changed.set()

    def _flush(self) -> None:
        out = self._call.take_out()
        if out and self._transport is not None and not self._transport.is_closing():
            self._transport.write(out)

    async def _change(self) -> None:
        await self._changed.wait()
        self._changed.clear()

    # The session's side.

    async def run(self) -> None:
        """Ping a node that has been silent for `keepalive_s`. End the call if the ping stays unanswered."""
        settings, asked_at = self._settings, 0.0
        while self._call.end is None:
            await self._clock.sleep(min(settings.keepalive_s, settings.keepalive_timeout_s) / 4)
            now, silent_since = self._clock.monotonic(), self._heard_at
            if asked_at > silent_since and now - asked_at > settings.keepalive_timeout_s:
                self._call.eof("keepalive: no answer to a ping")
                self._changed.set()
            elif asked_at <= silent_since and now - silent_since > settings.keepalive_s:
                asked_at = now
                self._call.ping()
                self._flush()

    async def receive(self) -> list[bytes]:
        """Return the waiting messages, at least one. Raises WireEnd after the last message."""
        call = self._call
        while not call.messages:
            if call.end is not None:
                raise call.end
            await self._change()
        batch, call.messages = call.messages, []
        call.taken(call.waiting)
        self._flush()
        return batch

    async def send(self, request: bytes) -> None:
        """Send one request. Does nothing once the stream has ended."""
        if self._call.end is None:
            self._call.send(request)
            self._flush()

    async def close(self) -> None:
        """End the connection at once."""
        self._call.eof("closed here")
        if self._transport is not None:
            self._transport.abort()


def _tls(ca_file: str) -> ssl.SSLContext:
    """Return the TLS context that checks a node's certificate. Blocks while it reads the trusted certificates."""
    context = ssl.create_default_context(cafile=ca_file or None)
    context.set_alpn_protocols(["h2"])
    return context
