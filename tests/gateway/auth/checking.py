"""An authenticator on a clock that stands, as the gateway would run it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from headrace.gateway.auth.authenticator import Authenticator
from headrace.gateway.auth.settings import AuthSettings
from headrace.model.credentials import Credential
from headrace.model.errors import RequestError
from headrace.model.identity import Identity
from headrace.runtime.clock import ManualClock
from headrace.runtime.health import Health
from headrace.runtime.metrics import Metrics
from headrace.runtime.supervise import Supervisor
from tests.gateway import issuer

NOW_S: Final = 1_700_000_000


class Checker:
    """Shows credentials, and says what became of them."""

    def __init__(self, auth: Authenticator, clock: ManualClock, metrics: Metrics, health: Health) -> None:
        self.auth, self.clock, self.metrics, self.health = auth, clock, metrics, health

    async def show(self, secret: str, kind: Any = "token") -> Identity | int:
        """The identity, or the code of the refusal."""
        try:
            return await self.auth.identify(Credential(kind, secret))
        except RequestError as refused:
            assert not str(refused).count("eyJ")
            return refused.code

    def outcomes(self) -> dict[str, float]:
        """How often each outcome was counted."""
        samples = [sample for family in self.metrics.registry.collect() for sample in family.samples]
        return {
            sample.labels["outcome"]: sample.value
            for sample in samples
            if sample.name == "headrace_gateway_credentials_total" and sample.value
        }

    def token(self, sub: Any = "42", **more: Any) -> str:
        return issuer.token(sub, **{"now_s": self.clock.wall_ns() / 1e9, **more})


@asynccontextmanager
async def open_checker(settings: AuthSettings = issuer.HS256) -> AsyncIterator[Checker]:
    clock, metrics, health = ManualClock(NOW_S * 10**9), Metrics(), Health()
    async with Supervisor(clock) as tasks:
        auth = Authenticator(settings, clock, metrics, health)
        await auth.start(tasks)
        yield Checker(auth, clock, metrics, health)
        tasks.cancel()
