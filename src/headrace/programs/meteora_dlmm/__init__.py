"""Meteora's DLMM, liquidity in bins."""
