"""Settings from environment, `.env` and `headrace.toml`, checked at start."""
