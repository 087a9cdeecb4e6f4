"""One endpoint's losses in a row, logged the first time, then ever more rarely, and once when it is back."""

from typing import Final

import structlog

from headrace.model.redact import redact_url

REPEAT_S: Final = 60.0
"""An outage that lasts this long is told again, then at twice that, four times that, and so on."""

_log = structlog.get_logger("source")


class Outage:
    """Counts the losses of one endpoint since it was last well. Times are monotonic seconds."""

    def __init__(self, source: str, url: str) -> None:
        self._source, self._url = source, redact_url(url)
        self._losses = 0
        self._since = 0.0
        self._repeat_s = REPEAT_S
        self._told = True  # the latest loss, or, at first, that there is no connection yet

    def lost(self, now: float, reason: str, detail: str, *, was_well: bool) -> None:
        """A connection ended, or could not be made; `was_well` starts the count anew."""
        if was_well or not self._losses:
            self._losses, self._since, self._repeat_s = 0, now, REPEAT_S
        self._losses += 1
        outage_s = now - self._since
        if self._losses > 1 and outage_s < self._repeat_s:
            return
        was_there, self._told = was_well or not self._told, True
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
        """The stream is whole again; said if the loss was."""
        if self._told:
            outage_s = round(now - self._since, 1) if self._losses else 0.0
            _log.info("connected", source=self._source, url=self._url, slot=slot, outage_s=outage_s)
        self._told = False
