"""Optional TLS: one certificate, replaced without a restart, and a limited number of handshakes."""

import asyncio
import ssl
from collections.abc import Callable
from typing import Protocol, cast

import structlog

from headrace.gateway.door.doorkeeper import Doorkeeper
from headrace.gateway.settings import TlsSettings
from headrace.model.errors import ConfigError
from headrace.runtime.supervise import Supervisor

_log = structlog.get_logger("gateway")


class Certificate:
    """The certificate for new handshakes.

    `reload` replaces it for later handshakes. Open connections are not affected.
    """

    def __init__(self, settings: TlsSettings) -> None:
        """Read the files. Raises ConfigError if they are not a certificate and its key."""
        self._settings = settings
        self._current = self._read()
        # Every handshake begins in this context, which switches it to the newest context.
        self.door = self._read()
        self.door.sni_callback = self._choose

    def reload(self) -> None:
        """Read the files again. A pair that does not match is refused, and the earlier certificate stays in use."""
        try:
            self._current = self._read()
        except ConfigError as error:
            _log.error("certificate_refused", error=str(error), effect="the former certificate stays in use")
        else:
            _log.info("certificate_loaded", file=self._settings.cert_file)

    def _choose(self, connection: ssl.SSLObject, _name: str | None, _door: ssl.SSLContext) -> None:
        connection.context = self._current

    def _read(self) -> ssl.SSLContext:
        cert, key = self._settings.cert_file, self._settings.key_file
        if not (cert and key):
            missing = "TLS_KEY_FILE" if cert else "TLS_CERT_FILE"
            raise ConfigError(missing, "nothing", "a file: a certificate and its key go together")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        try:
            context.load_cert_chain(cert, key, password=_no_password)
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            raise ConfigError("TLS_CERT_FILE", cert, f"a readable certificate with its key in {key}") from error
        return context


def _no_password() -> str:
    raise ValueError("the key is encrypted")  # otherwise OpenSSL would ask at the terminal


class Http(Protocol):
    """The protocol that follows the handshake."""

    def connection_made(self, transport: asyncio.Transport) -> None: ...

    def data_received(self, data: bytes) -> None: ...


class TlsConnection(asyncio.Protocol):
    """New connection until its TLS handshake has finished. Counts as a connection that is not yet a WebSocket."""

    def __init__(
        self, certificate: Certificate, keeper: Doorkeeper, supervisor: Supervisor, http: Callable[[], Http]
    ) -> None:
        self._certificate, self._keeper, self._supervisor, self._http = certificate, keeper, supervisor, http
        self._peer = ""
        self._early = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        name = transport.get_extra_info("peername")
        self._peer = str(name[0]) if name else ""
        one_too_many = self._keeper.begin_waiting(self._peer)
        if one_too_many:  # before the handshake, no reason can be sent
            self._keeper.refused.labels(str(int(one_too_many))).inc()
            self._keeper.stop_waiting(self._peer)
            self._transport.abort()
            return
        self._transport.pause_reading()  # uvloop keeps reading all the same, until the handshake begins
        self._supervisor.start("gateway", "tls", self._shake_hands, on_failure=self._transport.abort)
        asyncio.get_running_loop().call_soon(self._hand_on)

    def data_received(self, data: bytes) -> None:
        """Keep bytes that arrived before the handshake began, at most those of one read."""
        self._early += data

    def _hand_on(self) -> None:
        """Pass the early bytes to the handshake once it has begun, after the calls that its start has scheduled."""
        if self._early:
            asyncio.get_running_loop().call_soon(self._hand_on_now)

    def _hand_on_now(self) -> None:
        early, begun = memoryview(bytes(self._early)), self._transport.get_protocol()
        if self._transport.is_closing() or begun is self:
            return
        begun = cast("asyncio.BufferedProtocol", begun)  # true for both asyncio's and uvloop's
        while early:
            room = memoryview(begun.get_buffer(len(early)))
            count = min(len(room), len(early))
            room[:count] = early[:count]
            begun.buffer_updated(count)
            early = early[count:]

    async def _shake_hands(self) -> None:
        early, loop = _Early(), asyncio.get_running_loop()
        try:
            secure = await loop.start_tls(
                self._transport,
                early,
                self._certificate.door,
                server_side=True,
                ssl_handshake_timeout=self._keeper.settings.request_s,
                ssl_shutdown_timeout=self._keeper.settings.close_s,
            )
        except OSError:  # ssl.SSLError, resets and the time-out are subclasses
            self._keeper.refused.labels("tls").inc()
            self._transport.abort()
            return
        finally:
            self._keeper.stop_waiting(self._peer)
        if secure is None or early.lost:
            return
        http = self._http()
        secure.set_protocol(cast("asyncio.Protocol", http))
        http.connection_made(secure)
        if early.data:
            http.data_received(bytes(early.data))


class _Early(asyncio.Protocol):
    """Keeps the bytes that a client sent directly after its part of the handshake."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.lost = False

    def data_received(self, data: bytes) -> None:
        self.data += data

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True

    def eof_received(self) -> None:
        self.lost = True
