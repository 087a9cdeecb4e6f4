"""Solana RPC PubSub as a source: WebSocket subscriptions over one or several endpoints, gaps declared and refilled."""

from headrace.sources.rpc_pubsub.settings import RpcPubSubSettings, http_urls
from headrace.sources.rpc_pubsub.source import RpcPubSub

__all__ = ["RpcPubSub", "RpcPubSubSettings", "http_urls"]
