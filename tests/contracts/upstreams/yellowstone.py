"""A scripted Yellowstone node as an upstream."""

from typing import Self

import msgspec

from headrace.sources.yellowstone import YellowstoneSettings
from headrace.sources.yellowstone.messages import geyser
from headrace.testing.proxy import TcpProxy
from headrace.testing.yellowstone import ScriptedYellowstone
from tests.contracts.upstreams import FEED, PROGRAM
from tests.contracts.upstreams.chain import QUICK, ChainUpstream


class Upstream(ChainUpstream):
    node: ScriptedYellowstone

    def __init__(self) -> None:
        self.node = ScriptedYellowstone()

    async def __aenter__(self) -> Self:
        await self.node.__aenter__()
        self.proxy = await TcpProxy("127.0.0.1", self.node.port).__aenter__()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.proxy.__aexit__(*exc_info)
        await self.node.__aexit__(*exc_info)

    @property
    def settings(self) -> YellowstoneSettings:
        url = f"http://127.0.0.1:{self.proxy.port}"
        return msgspec.structs.replace(
            YellowstoneSettings(),
            urls=(url,),
            subscriptions=(FEED,),
            tick_s=0.01,
            connect_timeout_s=5.0,
            replay=False,  # with a replay a loss is no gap: tests/sources/yellowstone
            **QUICK,
        )

    @property
    def unusable(self) -> YellowstoneSettings:
        return YellowstoneSettings(urls=("http://127.0.0.1:1",), filters="[accounts.none]", subscriptions=())

    def send_times(self, times: int) -> None:
        self.node.faults.repeat = times

    def spoil(self) -> None:
        newest = self.node.requests[-1] if self.node.requests else geyser.SubscribeRequest()
        names = [name for name, each in newest.transactions.items() if PROGRAM in each.account_include]
        update = geyser.SubscribeUpdate(filters=names)
        update.transaction.slot = self.node.ledger.head
        update.transaction.transaction.signature = b"short"
        self.node.send_raw(update.SerializeToString())

    async def lost(self) -> None:
        await self.node.until(lambda: self.node.subscribers == 0)
