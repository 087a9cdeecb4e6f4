"""The nouns that every package shares: amounts, keys, updates, events, topics, errors. Pure data, no I/O."""
