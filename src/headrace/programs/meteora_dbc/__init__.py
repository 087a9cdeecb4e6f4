"""Meteora's dynamic bonding curve."""
