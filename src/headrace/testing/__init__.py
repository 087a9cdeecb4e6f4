"""Scripted peers and fakes for tests. They are part of the package, so that users can test against them too."""
