"""Reports of a source: its lines on the health board, and each endpoint's outages in the log."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

import structlog

from headrace.model.redact import redact_url
from headrace.runtime.health import Health
from headrace.sources.connection import Connection, Parting
from headrace.sources.proving import PROVEN, ProofState

SHOWN_S: Final = 300.0
"""Seconds for which the board names an endpoint after an unreadable message, or a slot that nothing confirmed."""
REPEAT_S: Final = 60.0
"""An outage that lasts this many seconds is logged again, then after twice as long, four times as long, and so on."""

_log = structlog.get_logger("source")


class SourceHealth:
    """Health of one source with endpoints at `urls`.

    `source:<name>` is ready if at least one endpoint is `whole` and has acknowledged a subscription other than slots.
    Two kinds of lines do not affect readiness: `source:<name>-<endpoint>:<feed>` names a refused subscription, and
    `source:<name>:proofs` says why transactions are not proven as usual, or not at all.
    """

    def __init__(self, name: str, board: Health, urls: Sequence[str], *, stall_slots: int) -> None:
        self._name, self._board, self._stall_slots = name, board, stall_slots
        self._outages = [Outage(f"{name}-{number}", url) for number, url in enumerate(urls)]
        self._last_loss = ""
        self._refused: set[str] = set()
        self._wild: dict[str, tuple[int, float]] = {}

    def wild(self, witness: str, slot: int, now: float) -> None:
        """Remember that a witness of the head reported a slot that nothing confirmed, or took a slot back."""
        self._wild[witness] = slot, now

    def lost(self, connection: Connection, parting: Parting, now: float, *, was_well: bool) -> None:
        """Log the end of a connection, and show it until the endpoint is back."""
        self._outages[connection.number].lost(now, parting.reason, parting.detail, was_well=was_well)
        self._last_loss = f"{parting.reason} {parting.detail}".strip()

    def recovered(self, connection: Connection, now: float) -> None:
        """Log that an endpoint delivers everything again."""
        self._outages[connection.number].recovered(now, connection.watch.head)

    def report(
        self,
        connections: Collection[Connection],
        wanted: int,
        *,
        now: float,
        open_gaps: int = 0,
        http_fault: str = "",
        ahead: Mapping[str, int] = MappingProxyType({}),
        proofs: ProofState = PROVEN,
    ) -> None:
        """Report the current state; `wanted` is the number of subscriptions, including slots."""
        whole = [connection for connection in connections if connection.whole]
        parts = [f"{len(whole)} of {len(self._outages)} endpoints"]
        if open_gaps:
            parts.append(f"filling {open_gaps} gaps")
        if len(whole) < len(self._outages):
            parts.append(f"connecting after: {self._last_loss}" if self._last_loss else "connecting")
        parts += [
            f"{connection.name} is {connection.watch.lag_slots} slots behind"
            for connection in whole
            if connection.watch.lag_slots > self._stall_slots
        ]
        parts += [
            f"{connection.name} sent {connection.unreadable} notifications that can't be read"
            f" ({connection.unreadable_last})"
            for connection in connections
            if connection.unreadable and now - connection.unreadable_at < SHOWN_S
        ]
        parts += [f"{witness} says to be {slots} slots ahead of the others" for witness, slots in ahead.items()]
        parts += [
            f"{witness} told of slot {slot}, which nothing bore out"
            for witness, (slot, at) in self._wild.items()
            if now - at < SHOWN_S
        ]
        if http_fault:
            parts.append(f"HTTP: {http_fault}")
        ready = any(wanted == 1 or len(connection.refused) < wanted - 1 for connection in whole)
        self._board.report(f"source:{self._name}", ready=ready, detail="; ".join(parts))
        self._report_refused(connections)
        self._report_proofs(proofs)

    def close(self) -> None:
        """Remove the lines about refused subscriptions and proofs from the board: the source ends."""
        self._report_refused(())
        self._report_proofs(PROVEN)

    def _report_proofs(self, proofs: ProofState) -> None:
        component = f"source:{self._name}:proofs"
        if proofs.detail:
            self._board.report(component, ready=proofs.proves, detail=proofs.detail, required=False)
        else:
            self._board.forget(component)

    def _report_refused(self, connections: Iterable[Connection]) -> None:
        refused = {
            f"source:{connection.name}:{subscription.feed}": reason
            for connection in connections
            for subscription, reason in connection.refused.items()
        }
        for component in self._refused - refused.keys():
            self._board.forget(component)
        for component, reason in refused.items():
            self._board.report(component, ready=False, detail=reason, required=False)
        self._refused = set(refused)


class Outage:
    """Consecutive connection losses of one endpoint.

    Logs the first loss, later ones at doubling intervals, and the recovery. Times are monotonic seconds.
    """

    def __init__(self, source: str, url: str) -> None:
        self._source, self._url = source, redact_url(url)
        self._losses = 0
        self._since = 0.0
        self._repeat_s = REPEAT_S
        self._logged = True  # whether the latest loss was logged; at first True, so that the first connection is logged

    def lost(self, now: float, reason: str, detail: str, *, was_well: bool) -> None:
        """Count the end of a connection, or a failed attempt.

        With `was_well`, the connection had worked, so the count starts again.
        """
        if was_well or not self._losses:
            self._losses, self._since, self._repeat_s = 0, now, REPEAT_S
        self._losses += 1
        outage_s = now - self._since
        if self._losses > 1 and outage_s < self._repeat_s:
            return
        was_there, self._logged = was_well or not self._logged, True
        while outage_s >= self._repeat_s:
            self._repeat_s *= 2
        _log.warning(
            "connection_lost" if was_there else "no_connection",
            source=self._source,
            url=self._url,
            reason=reason,
            detail=detail,
            losses=self._losses,
            outage_s=round(outage_s, 1),
        )

    def recovered(self, now: float, slot: int) -> None:
        """Log that the stream is whole again, if its loss was logged."""
        if self._logged:
            outage_s = round(now - self._since, 1) if self._losses else 0.0
            _log.info("connected", source=self._source, url=self._url, slot=slot, outage_s=outage_s)
        self._logged = False
