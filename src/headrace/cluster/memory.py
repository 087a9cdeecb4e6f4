"""The directory of a process that is alone: the process itself, and leases without other candidates."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

from headrace.adapters import Context
from headrace.cluster import BOX_MAX, SERVE_S, Answer, ClusterSettings, Grant, Member, Server
from headrace.model.errors import TransientError
from headrace.runtime.clock import Clock


@dataclass
class _Lease:
    holder: str = ""
    token: int = 0
    until_s: float = 0.0
    note: bytes = b""


class MemoryCluster:
    """The `Cluster` of one process, with the servers that send heartbeats to it."""

    Settings = ClusterSettings
    SECTION = "cluster"
    shared = False

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._servers: dict[str, tuple[Server, float]] = {}
        self._leases: dict[str, _Lease] = {}
        self._readers: list[asyncio.Queue[bytes]] = []
        self._boxes: dict[str, asyncio.Queue[tuple[bytes, asyncio.Future[bytes]]]] = {}

    @classmethod
    async def open(cls, settings: ClusterSettings, context: Context) -> "MemoryCluster":
        return cls(context.clock)

    async def beat(self, server: Server, silence_s: float) -> Sequence[Member]:
        now_s = self._clock.monotonic()
        self._servers[server.incarnation] = (server, now_s)
        for incarnation, (_, beat_s) in list(self._servers.items()):
            if now_s - beat_s >= silence_s:
                del self._servers[incarnation]
        found = [Member(each, round((now_s - beat_s) * 1000)) for each, beat_s in self._servers.values()]
        return sorted(found, key=lambda member: (member.server.server_id, member.server.incarnation))

    async def leave(self, server: Server) -> None:
        self._servers.pop(server.incarnation, None)

    async def take(self, lease: str, holder: str, ttl_s: float) -> Grant | None:
        now_s, known = self._clock.monotonic(), self._leases.setdefault(lease, _Lease())
        if known.holder not in ("", holder) and known.until_s > now_s:
            return None
        known.holder, known.token, known.until_s = holder, known.token + 1, now_s + ttl_s
        return Grant(known.token, known.note)

    async def keep(self, lease: str, holder: str, token: int, ttl_s: float, note: bytes) -> bool:
        known = self._leases.setdefault(lease, _Lease())
        if known.token > token:
            return False
        known.holder, known.token, known.note = holder, token, note
        known.until_s = self._clock.monotonic() + ttl_s
        return True

    async def release(self, lease: str, token: int, note: bytes) -> None:
        known = self._leases.setdefault(lease, _Lease())
        if known.token == token:
            known.holder, known.note, known.token = "", note, token + 1

    async def ask(self, box: str, request: bytes, patience_s: float) -> bytes:
        waiting = self._boxes.setdefault(box, asyncio.Queue(BOX_MAX))
        answered: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        try:
            waiting.put_nowait((request, answered))
            async with asyncio.timeout(patience_s):
                return await answered
        except (asyncio.QueueFull, TimeoutError) as error:
            raise TransientError(f"nobody answers in {box}") from error

    async def serve(self, box: str, answer: Answer) -> None:
        waiting = self._boxes.setdefault(box, asyncio.Queue(BOX_MAX))
        try:
            async with asyncio.timeout(SERVE_S):
                request, answered = await waiting.get()
        except TimeoutError:
            return
        result = await answer(request)
        if not answered.done():  # otherwise the caller no longer waits
            answered.set_result(result)

    async def publish(self, message: bytes) -> None:
        for reader in self._readers:
            if not reader.full():
                reader.put_nowait(message)

    async def messages(self) -> AsyncGenerator[bytes, None]:
        reader: asyncio.Queue[bytes] = asyncio.Queue(BOX_MAX)
        self._readers.append(reader)
        try:
            while True:
                yield await reader.get()
        finally:
            self._readers.remove(reader)

    async def close(self) -> None:
        self._servers.clear()
