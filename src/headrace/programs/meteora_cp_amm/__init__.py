"""Meteora's DAMM v2, a constant-product pool."""
