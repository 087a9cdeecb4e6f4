"""Authentication: tokens, keys and tickets become an Identity, or a refusal that does not show the reason."""
