"""Meteora's DAMM v1, pools over shared vaults."""
