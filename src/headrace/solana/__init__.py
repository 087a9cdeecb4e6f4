"""Solana nodes: the JSON-RPC client, and their JSON read into updates."""
