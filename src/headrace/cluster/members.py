"""Announce this server with heartbeats, and remember which servers are in the directory."""

from collections.abc import Callable, Sequence

import structlog

from headrace.cluster import BEATS_MISSED, Cluster, Member, Server
from headrace.model.errors import TransientError
from headrace.runtime.clock import Clock
from headrace.runtime.metrics import Metrics

_log = structlog.get_logger("cluster")

CLASH_BEATS = 4
"""Beats during which another server of the same name must live until it counts as a clash, not as an earlier start."""


class Members:
    """The servers in the directory at the last heartbeat. `describe` returns the present state of this server."""

    def __init__(
        self, cluster: Cluster, describe: Callable[[], Server], beat_s: float, clock: Clock, metrics: Metrics
    ) -> None:
        self._cluster, self._describe, self._beat_s, self._clock = cluster, describe, beat_s, clock
        self._known: Sequence[Member] = ()
        self._away: TransientError | None = None
        self._clashes: dict[str, int] = {}
        metrics.gauge("cluster_servers", "Servers that live, as of the last heartbeat").set_function(
            lambda: len(self.servers)
        )
        self._failed = metrics.counter("cluster_beats_failed", "Heartbeats that did not reach the other servers")

    @property
    def own(self) -> Server:
        """Return the present state of this server."""
        return self._describe()

    @property
    def servers(self) -> Sequence[Member]:
        """Return all servers at the last heartbeat, sorted by name. This server is in its present state."""
        own = self._describe()
        others = [member for member in self._known if member.server.incarnation != own.incarnation]
        members = [*others, Member(own, 0)]
        return sorted(members, key=lambda member: (member.server.server_id, member.server.incarnation))

    @property
    def names(self) -> Sequence[str]:
        """Return the names of all servers, as of the last heartbeat."""
        return [member.server.server_id for member in self.servers]

    @property
    def current(self) -> bool:
        """Return whether the last heartbeat was answered; otherwise other servers may have come or gone since."""
        return self._away is None

    async def run(self) -> None:
        """Send heartbeats until cancelled."""
        while True:
            await self.beat()
            await self._clock.sleep(self._beat_s)

    async def beat(self) -> None:
        """Send one heartbeat, and store the servers that the directory returns."""
        own = self._describe()
        try:
            found = await self._cluster.beat(own, BEATS_MISSED * self._beat_s)
        except TransientError as error:
            if self._away is None:
                _log.warning("directory_away", error=str(error))
            self._away = error
            self._failed.inc()
            return
        if self._away is not None:
            _log.info("directory_back")
        self._away = None
        self._report({each.server.incarnation: each.server for each in found if each.server != own}, own)
        self._known = found

    async def leave(self) -> None:
        """Remove this server from the directory, if the directory can be reached."""
        try:
            await self._cluster.leave(self._describe())
        except TransientError as error:
            _log.warning("directory_away", error=str(error))

    async def check(self, *, thorough: bool) -> str:
        """Return the number of servers. Raises TransientError while unknown, or if another server has this name."""
        if self._away is not None:
            raise self._away
        if any(beats >= CLASH_BEATS for beats in self._clashes.values()):
            raise TransientError("another server has the same SERVER_ID")
        count = len(self.servers)
        return "one server" if count == 1 else f"{count} servers"

    def _report(self, found: dict[str, Server], own: Server) -> None:
        """Log servers that came or went, and any other server with this name."""
        before = {each.server.incarnation: each.server for each in self._known}
        for incarnation in before.keys() - found.keys() - {own.incarnation}:
            _log.info("server_gone", server_id=before[incarnation].server_id)
        for incarnation in found.keys() - before.keys() - {own.incarnation}:
            _log.info("server_found", server_id=found[incarnation].server_id, address=found[incarnation].address)
        same = [each for each, server in found.items() if server.server_id == own.server_id and each != own.incarnation]
        self._clashes = {each: self._clashes.get(each, 0) + 1 for each in same}
        if CLASH_BEATS in self._clashes.values():
            _log.error("server_id_taken", server_id=own.server_id, meaning="give each server its own SERVER_ID")
