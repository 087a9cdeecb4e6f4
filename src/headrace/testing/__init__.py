"""Scripted peers and fakes for tests. They are part of the package, so that users can also test against them."""
