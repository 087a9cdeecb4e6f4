"""Show what `headrace decode` is given: find out what it is, decode it, print it."""
