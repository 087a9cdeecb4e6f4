"""Pump.fun's bonding curves."""
