"""One endpoint's losses in a row, logged the first time, then ever more rarely, and once when it is back."""

import structlog

from headrace.model.redact import redact

_log = structlog.get_logger("source")


class Outage:
    """Counts the losses of one endpoint since it was last well."""

    def __init__(self, source: str, url: str) -> None:
        self._source, self._url = source, redact(url)
        self._losses = 0
        self._since = 0.0

    def lost(self, now: float, reason: str, detail: str, *, was_well: bool) -> None:
        """A connection ended; `was_well` starts the count anew. Logs the 1st, 2nd, 4th, 8th … loss in a row."""
        if was_well or not self._losses:
            self._losses, self._since = 0, now
        self._losses += 1
        if self._losses & (self._losses - 1) == 0:
            _log.warning(
                "connection_lost",
                source=self._source,
                url=self._url,
                reason=reason,
                detail=detail,
                losses=self._losses,
                outage_s=round(now - self._since, 1),
            )

    def recovered(self, now: float, slot: int) -> None:
        """The stream is whole again; said as rarely as the losses."""
        if self._losses & (self._losses - 1) == 0:
            outage_s = round(now - self._since, 1) if self._losses else 0.0
            _log.info("connected", source=self._source, url=self._url, slot=slot, outage_s=outage_s)
