"""Raydium's LaunchLab, bonding curves."""
