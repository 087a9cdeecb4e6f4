"""Scripted peers and fakes, shipped: users test against them too."""
