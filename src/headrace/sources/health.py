"""How the source stands, on the health board: one line for the whole, one for each subscription that a node refuses."""

from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType
from typing import Final

from headrace.runtime.health import Health
from headrace.sources.proving import PROVEN, ProofState
from headrace.sources.rpc_pubsub.session import Parting, Session
from headrace.sources.rpc_pubsub.settings import RpcPubSubSettings

SHOWN_S: Final = 300.0
"""So long after the last time it is shown that an endpoint sent what can't be read, or a wild slot."""


class Standing:
    """`source:<name>` is ready when an endpoint surely brings all that it took, and took something besides slots.

    The lines `source:<name>-<endpoint>:<feed>` name what is refused, and `source:<name>:proofs` why transactions are
    not proven as usual, or not at all; they do not decide readiness.
    """

    def __init__(self, name: str, health: Health, settings: RpcPubSubSettings) -> None:
        self._name, self._health, self._settings = name, health, settings
        self._last_loss = ""
        self._refused: set[str] = set()
        self._wild: dict[str, tuple[int, float]] = {}

    def wild(self, witness: str, slot: int, now: float) -> None:
        """A witness of the head told of a slot that nothing bore out, or took it back; said for a while."""
        self._wild[witness] = slot, now

    def lost(self, parting: Parting) -> None:
        """A connection ended; said as long as an endpoint is not back."""
        self._last_loss = f"{parting.reason} {parting.detail}".strip()

    def report(
        self,
        sessions: Collection[Session],
        wanted: int,
        *,
        now: float,
        open_gaps: int = 0,
        http_fault: str = "",
        ahead: Mapping[str, int] = MappingProxyType({}),
        proofs: ProofState = PROVEN,
    ) -> None:
        """Say it anew; `wanted` is the number of subscriptions, that to slots included."""
        whole = [session for session in sessions if session.whole]
        parts = [f"{len(whole)} of {len(self._settings.ws_urls)} endpoints"]
        if open_gaps:
            parts.append(f"filling {open_gaps} gaps")
        if len(whole) < len(self._settings.ws_urls):
            parts.append(f"connecting after: {self._last_loss}" if self._last_loss else "connecting")
        parts += [
            f"{session.name} is {session.watch.lag_slots} slots behind"
            for session in whole
            if session.watch.lag_slots > self._settings.stall_slots
        ]
        parts += [
            f"{session.name} sent {session.unreadable} notifications that can't be read ({session.unreadable_last})"
            for session in sessions
            if session.unreadable and now - session.unreadable_at < SHOWN_S
        ]
        parts += [f"{witness} says to be {slots} slots ahead of the others" for witness, slots in ahead.items()]
        parts += [
            f"{witness} told of slot {slot}, which nothing bore out"
            for witness, (slot, at) in self._wild.items()
            if now - at < SHOWN_S
        ]
        if http_fault:
            parts.append(f"HTTP: {http_fault}")
        ready = any(wanted == 1 or len(session.registry.refused) < wanted - 1 for session in whole)
        self._health.report(f"source:{self._name}", ready=ready, detail="; ".join(parts))
        self._report_refused(sessions)
        self._report_proofs(proofs)

    def close(self) -> None:
        """Take the lines of what is refused off the board: the source ends."""
        self._report_refused(())
        self._report_proofs(PROVEN)

    def _report_proofs(self, proofs: ProofState) -> None:
        component = f"source:{self._name}:proofs"
        if proofs.detail:
            self._health.report(component, ready=proofs.proves, detail=proofs.detail, required=False)
        else:
            self._health.forget(component)

    def _report_refused(self, sessions: Iterable[Session]) -> None:
        refused = {
            f"source:{session.name}:{subscription.feed}": reason
            for session in sessions
            for subscription, reason in session.registry.refused.items()
        }
        for component in self._refused - refused.keys():
            self._health.forget(component)
        for component, reason in refused.items():
            self._health.report(component, ready=False, detail=reason, required=False)
        self._refused = set(refused)
