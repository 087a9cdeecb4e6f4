"""Moonshot's bonding curves."""
