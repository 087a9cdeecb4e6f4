"""The stream by grpcio: one task reads, what it read waits in a channel bounded in bytes."""

import asyncio
from pathlib import Path
from typing import Any, Final, Self

import grpc

from headrace.runtime.channel import Channel, ChannelClosed
from headrace.runtime.clock import Clock
from headrace.sources.yellowstone.endings import WireEnd
from headrace.sources.yellowstone.requests import METHOD
from headrace.sources.yellowstone.settings import YellowstoneSettings

_MESSAGES_MAX: Final = 65_536
_ALGORITHMS: Final = {"none": 0b001, "gzip": 0b101, "zstd": 0b001}
"""Compression algorithms that grpcio offers to a node, as a set of bits; it has no zstd."""


class GrpcioWire:
    """A subscription by `grpc.aio`."""

    def __init__(self, channel: Any, call: Any, settings: YellowstoneSettings) -> None:
        self._channel, self._call, self._send_s = channel, call, settings.connect_timeout_s
        self._waiting: Channel[bytes] = Channel(
            _MESSAGES_MAX, "block", name="yellowstone", weigh=len, weight_max=settings.waiting_bytes_max
        )
        self._end = WireEnd("CANCELLED", "closed here")

    @classmethod
    async def open(cls, url: str, settings: YellowstoneSettings, clock: Clock) -> Self:
        """Connect and begin the call. Raises WireEnd."""
        secure, _, target = url.partition("://")
        options = [
            ("grpc.max_receive_message_length", settings.message_bytes_max),
            ("grpc.keepalive_time_ms", round(settings.keepalive_s * 1000)),
            ("grpc.keepalive_timeout_ms", round(settings.keepalive_timeout_s * 1000)),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.max_pings_without_data", 0),
            ("grpc.http2.lookahead_bytes", settings.waiting_bytes_max),
            ("grpc.enable_retries", 0),
            ("grpc.compression_enabled_algorithms_bitset", _ALGORITHMS[settings.compression]),
            ("grpc.use_local_subchannel_pool", 1),
        ]
        if secure == "https":
            roots = await asyncio.to_thread(Path(settings.ca_file).read_bytes) if settings.ca_file else None
            credentials = grpc.ssl_channel_credentials(root_certificates=roots)
            channel = grpc.aio.secure_channel(target.rstrip("/"), credentials, options=options)
        else:
            channel = grpc.aio.insecure_channel(target.rstrip("/"), options=options)
        metadata = (("x-token", settings.x_token),) if settings.x_token else ()
        try:
            async with asyncio.timeout(settings.connect_timeout_s):
                await channel.channel_ready()
            call = channel.stream_stream(METHOD)(metadata=metadata)
        except TimeoutError:
            await channel.close()
            raise WireEnd("UNAVAILABLE", "no connection in time") from None
        except BaseException:
            await channel.close()
            raise
        return cls(channel, call, settings)

    async def run(self) -> None:
        """Read until the end; a full channel holds the reading up, and then the node."""
        try:
            while (message := await self._call.read()) is not grpc.aio.EOF:
                await self._waiting.put(message)
            self._end = WireEnd((await self._call.code()).name, await self._call.details() or "")
        except grpc.aio.AioRpcError as error:
            self._end = WireEnd(error.code().name, error.details() or "")
        except ChannelClosed:
            pass
        finally:
            self._waiting.close()

    async def receive(self) -> list[bytes]:
        """Return the messages that wait, at least one. Raises WireEnd after the last one."""
        try:
            return await self._waiting.get_batch()
        except ChannelClosed:
            raise self._end from None

    async def send(self, request: bytes) -> None:
        """Send one request. Does nothing after the end."""
        try:
            async with asyncio.timeout(self._send_s):
                await self._call.write(request)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError, TimeoutError):
            pass  # the reading says why; a request that nothing follows ends the connection

    async def close(self) -> None:
        """End the connection at once."""
        self._waiting.close()
        self._call.cancel()
        await self._channel.close()
