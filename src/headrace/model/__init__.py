"""The nouns that every room shares: amounts, keys, updates, events, topics, errors. Pure data, no I/O."""
