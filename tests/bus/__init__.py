"""Tests of what every bus is made of."""
