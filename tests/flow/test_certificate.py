"""A service whose certificate is renewed while it runs."""

import asyncio
from pathlib import Path

from headrace.config import load
from headrace.runtime.supervise import Supervisor
from headrace.service.server import Service
from headrace.service.settings import SECTIONS
from tests.gateway.test_tls import name_shown, write_pair

QUIET = {"SERVER_PORT": "0", "TRANSACTION_LISTENER_ENABLED": "false"}


async def test_a_renewed_certificate_is_used_without_a_restart(tmp_path: Path) -> None:
    tls = write_pair(tmp_path, "old")
    env = QUIET | {"TLS_CERT_FILE": tls.cert_file, "TLS_KEY_FILE": tls.key_file}
    service = await asyncio.to_thread(lambda: Service(load(SECTIONS, env=env, dotenv=None, toml=None)))
    stop = asyncio.Event()
    async with Supervisor(service.clock) as tasks:
        tasks.start("test", "service", lambda: service.run(stop))
        await service.started.wait()
        assert service.gateway is not None
        assert await name_shown(service.gateway.port) == "old"
        write_pair(tmp_path, "new")
        async with asyncio.timeout(30):
            while await name_shown(service.gateway.port) != "new":  # noqa: ASYNC110  (seen from outside only)
                await asyncio.sleep(0.05)
        stop.set()
