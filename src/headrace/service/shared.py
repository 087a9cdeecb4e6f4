"""The lanes of a server: on its own bus all of them, and on a shared bus those whose leases it has."""

import asyncio
import secrets
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import msgspec
import structlog

from headrace import __version__
from headrace.adapters import Context
from headrace.bus import Bus, BusSettings, Lane, Writer
from headrace.bus.lanes import LANES, lanes_of
from headrace.cluster import Cluster, ClusterSettings, Server
from headrace.cluster.identity import made_server_id
from headrace.cluster.lanes import LaneWriter, lead, writers_of
from headrace.cluster.leadership import Candidate
from headrace.cluster.members import Members
from headrace.config import Config, CoreSettings
from headrace.model.events import event_id_of
from headrace.runtime.backoff import Backoff
from headrace.runtime.clock import Clock
from headrace.runtime.probes import Probes
from headrace.runtime.supervise import Supervisor

KNOWN_S: Final = 60.0
"""Seconds of the past in which a new leader looks for events that the previous leader published."""

_log = structlog.get_logger("cluster")

Begin = Callable[[Writer, bytes], None]
"""Begins the work of a lane. Gets the lane's writer, and the note of the last server that had the lane."""


class Lanes:
    """The lanes on which this server publishes, and its membership in the deployment's cluster.

    `writers` publish on every lane: directly on the server's own bus, otherwise through the server that has the lane.
    `candidates` are the lanes that this server may have.
    """

    def __init__(
        self, bus: Bus, cluster: Cluster, candidates: Sequence[Lane], settings: ClusterSettings, clock: Clock
    ) -> None:
        self.bus, self.cluster, self.candidates = bus, cluster, candidates
        self.incarnation = secrets.token_hex(8)
        self.writers: Mapping[Lane, Writer] = {}
        self._settings, self._clock = settings, clock
        self._shared: Mapping[Lane, LaneWriter] = {}
        self._leases: list[Candidate] = []
        self._tasks: list[asyncio.Task[object]] = []

    @classmethod
    async def open(cls, bus: Bus, cluster: Cluster, config: Config, clock: Clock, *, stream: bool) -> "Lanes":
        """Return the lanes. On a bus of this process, all are claimed."""
        candidates = lanes_of(bus, config.section(BusSettings).lanes, stream=stream)
        lanes = cls(bus, cluster, candidates, config.section(ClusterSettings), clock)
        if bus.shared:
            lanes._shared = lanes.writers = writers_of(LANES, cluster, lanes.incarnation)
        else:
            lanes.writers = {lane: await bus.claim(lane) for lane in candidates}
        return lanes

    @property
    def led(self) -> tuple[Lane, ...]:
        """The lanes that this server has now."""
        if not self.bus.shared:
            return tuple(self.candidates)
        return tuple(lane for lane, writer in self._shared.items() if writer.own is not None)

    def has(self, lane: Lane) -> bool:
        """Return whether this server has the lane now."""
        return lane in self.led

    def start(self, tasks: Supervisor, begin: Mapping[Lane, Begin], note: Callable[[], bytes]) -> None:
        """Begin the work of each lane as soon as this server has it. `note` is kept for the next leader of `ingest`."""
        if not self.bus.shared:
            for lane in self.candidates:
                if lane in begin:
                    begin[lane](self.writers[lane], b"")
            return
        for lane in self.candidates:
            kept = note if lane == "ingest" else bytes
            lease = Candidate(self.cluster, f"lane:{lane}", self.incarnation, self._settings.lease_s, self._clock, kept)
            self._leases.append(lease)
            writer, started = self._shared[lane], begin.get(lane, _begin_nothing)

            def begun(own: Writer, note: bytes, writer: LaneWriter = writer, started: Begin = started) -> None:
                serving = tasks.start("cluster", f"serve {writer.lane}", writer.serve, restart=Backoff(0.1, 2.0))
                self._tasks.append(serving)
                started(own, note)

            work = partial(lead, lease, writer, self.bus, self._clock, begun)
            self._tasks.append(tasks.start("cluster", f"lead {lane}", work))

    async def release(self) -> None:
        """Release all lanes at once, so that other servers can take them."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        for writer in self._shared.values():
            writer.own = None
        for lease in self._leases:
            await lease.release()


def new_members(
    lanes: Lanes, context: Context, settings: ClusterSettings, server_id: str, load: Callable[[], Mapping[str, object]]
) -> Members:
    """Return this server's directory of all servers. `load` returns the counts of this server's clients."""
    started_ms = context.clock.wall_ns() // 1_000_000

    def describe() -> Server:
        own = {
            "server_id": server_id,
            "incarnation": lanes.incarnation,
            "version": __version__,
            "started_ms": started_ms,
            "ready": context.health.ready,
            "lanes": lanes.led,
            "address": settings.address,
        }
        return msgspec.convert({**own, **load()}, Server)

    return Members(lanes.cluster, describe, settings.beat_s, context.clock, context.metrics)


def server_id_of(config: Config, *, shared: bool) -> tuple[str, Callable[[], None]]:
    """Return the server's name, and a function that releases a generated name for other servers.

    On a shared bus, a server without SERVER_ID generates a name, because two servers on one machine would both have the
    machine's name.
    """
    given = config.section(CoreSettings).server_id
    if not shared or config.origins["core.server_id"].kind != "default":
        return given, lambda: None
    return made_server_id(given, Path(config.section(ClusterSettings).id_file))


async def events_of_late(bus: Bus, clock: Clock) -> set[str]:
    """Return the ids of the events that other servers recently published, except on topics of applications."""
    since_s, found = clock.monotonic() - KNOWN_S, set[str]()
    for topic in bus.topics():
        page = await bus.history(topic, None, 1_000_000)
        for message in reversed(page.messages):
            if message.at_s < since_s:
                break
            if message.kind == "event" and (event_id := event_id_of(message.body)):
                found.add(event_id)
        await clock.sleep(0)
    return found


def watch(members: Members, probes: Probes) -> None:
    """Add the directory to the health checks. A server continues without the other servers."""
    probes.add("cluster", members.check, required=False)


def _begin_nothing(_: Writer, _note: bytes) -> None:
    """Do nothing: the lane has no work except to publish on request."""
