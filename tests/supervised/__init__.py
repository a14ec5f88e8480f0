"""Pools as programs of their own: slower than the rest, and a target of their own."""
