"""Tests of time limits and of what tasks start, with workers as programs of their own; `make test-children`."""
