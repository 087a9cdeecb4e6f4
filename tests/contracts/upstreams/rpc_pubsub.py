"""A scripted node with PubSub as an upstream."""

from typing import Self

import msgspec

from headrace.sources.rpc_pubsub import RpcPubSubSettings
from headrace.testing.node import ScriptedNode
from headrace.testing.proxy import TcpProxy
from tests.contracts.upstreams import FEED, PROGRAM
from tests.contracts.upstreams.chain import QUICK, ChainUpstream


class Upstream(ChainUpstream):
    node: ScriptedNode

    def __init__(self) -> None:
        self.node = ScriptedNode()

    async def __aenter__(self) -> Self:
        await self.node.__aenter__()
        self.proxy = await TcpProxy("127.0.0.1", self.node.ws_port).__aenter__()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.proxy.__aexit__(*exc_info)
        await self.node.__aexit__(*exc_info)

    @property
    def settings(self) -> RpcPubSubSettings:
        url = f"ws://127.0.0.1:{self.proxy.port}"
        return msgspec.structs.replace(
            RpcPubSubSettings(), ws_urls=(url,), subscriptions=(FEED,), tick_s=0.01, connect_timeout_s=5.0, **QUICK
        )

    @property
    def unusable(self) -> RpcPubSubSettings:
        return RpcPubSubSettings(ws_urls=("http://127.0.0.1:1",), subscriptions=())

    def send_times(self, times: int) -> None:
        self.node.faults.repeat = times

    def spoil(self) -> None:
        server_id = self.node.subscription_id("logs") if self.node.subscribed("logs", PROGRAM) else 0
        params = {"result": {"context": {"slot": self.node.ledger.head}, "value": 7}, "subscription": server_id}
        self.node.send_raw(msgspec.json.encode({"method": "logsNotification", "params": params}).decode())

    async def lost(self) -> None:
        await self.node.until(lambda: self.node.subscribed("slot") == 0)
