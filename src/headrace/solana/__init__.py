"""Solana nodes: the JSON-RPC client, and readers that turn the nodes' JSON into updates."""
