"""Authentication: a token or a ticket becomes an Identity, or a refusal that does not show the reason."""
