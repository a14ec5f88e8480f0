"""Tests with a real systemd as the first process of a machine of its own."""
