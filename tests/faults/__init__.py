"""What fails, and what goes on: slower than the rest, and a target of their own."""
