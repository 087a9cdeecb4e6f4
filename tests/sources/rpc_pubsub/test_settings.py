"""Endpoints: which are accepted, and which HTTP endpoints stand beside them."""

import msgspec
import pytest

from headrace.config import load
from headrace.model.errors import ConfigError
from headrace.solana.rpc import RpcSettings
from headrace.sources.rpc_pubsub import RpcPubSubSettings, http_urls
from headrace.sources.rpc_pubsub.settings import check_ws_urls


@pytest.mark.parametrize(
    ("ws", "http"),
    [
        ("wss://api.mainnet-beta.solana.com", "https://api.mainnet-beta.solana.com"),
        ("wss://node.example/?api-key=1", "https://node.example/?api-key=1"),
        ("ws://127.0.0.1:8900", "http://127.0.0.1:8899"),
        ("ws://127.0.0.1:9000/path", "http://127.0.0.1:9000/path"),
    ],
)
def test_http_endpoints_stand_beside_websocket_endpoints(ws: str, http: str) -> None:
    assert http_urls((ws, ws)) == (http,)


@pytest.mark.parametrize(
    "url", ["", "node.example", "https://node.example", "ws://", "ws://host:port", "ws://host:99999"]
)
def test_wrong_urls_are_refused_without_showing_secrets(url: str) -> None:
    with pytest.raises(ConfigError, match="SOLANA_RPC_WS"):
        check_ws_urls((url,))
    with pytest.raises(ConfigError) as raised:
        check_ws_urls((f"x{url}?api-key=hidden",))
    assert "hidden" not in str(raised.value)


def test_the_promised_environment_names_set_the_settings() -> None:
    sections: dict[str, type[msgspec.Struct]] = {"rpc": RpcSettings, "rpc_pubsub": RpcPubSubSettings}
    env = {"SOLANA_WS_URL": "ws://a:1,ws://b:2", "SOLANA_RPC_URL": "http://a:3", "SUBSCRIPTIONS": "logs:pump,slots:x"}
    config = load(sections, env=env, dotenv=None, toml=None)
    assert config.section(RpcPubSubSettings).ws_urls == ("ws://a:1", "ws://b:2")
    assert config.section(RpcPubSubSettings).subscriptions == ("logs:pump", "slots:x")
    assert config.section(RpcSettings).urls == ("http://a:3",)


def test_defaults_are_mainnet_and_valid() -> None:
    settings = RpcPubSubSettings()
    check_ws_urls(settings.ws_urls)
    assert msgspec.convert(msgspec.to_builtins(settings), RpcPubSubSettings) == settings
