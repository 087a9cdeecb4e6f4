"""Prices, volumes and market caps: what many trades of a mint say together."""
