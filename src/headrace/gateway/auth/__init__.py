"""Who may come in: tokens, keys and tickets become an Identity, or a refusal that says nothing of why."""
