"""How the source stands, on the health board: one line for the whole, one for each subscription that a node refuses."""

from collections.abc import Collection, Iterable

from headrace.runtime.health import Health
from headrace.sources.rpc_pubsub.session import Parting, Session
from headrace.sources.rpc_pubsub.settings import RpcPubSubSettings


class Standing:
    """`source:<name>` is ready when an endpoint surely brings all that it took, and took something besides slots.

    The lines `source:<name>-<endpoint>:<feed>` name what is refused and do not decide readiness.
    """

    def __init__(self, name: str, health: Health, settings: RpcPubSubSettings) -> None:
        self._name, self._health, self._settings = name, health, settings
        self._last_loss = ""
        self._refused: set[str] = set()

    def lost(self, parting: Parting) -> None:
        """A connection ended; said as long as an endpoint is not back."""
        self._last_loss = f"{parting.reason} {parting.detail}".strip()

    def report(self, sessions: Collection[Session], wanted: int, *, open_gaps: int = 0, http_fault: str = "") -> None:
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
        if http_fault:
            parts.append(f"HTTP: {http_fault}")
        ready = any(wanted == 1 or len(session.registry.refused) < wanted - 1 for session in whole)
        self._health.report(f"source:{self._name}", ready=ready, detail="; ".join(parts))
        self._report_refused(sessions)

    def close(self) -> None:
        """Take the lines of what is refused off the board: the source ends."""
        self._report_refused(())

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
