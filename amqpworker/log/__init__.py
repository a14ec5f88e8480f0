"""Log lines: what each carries, how it looks, and where it is written."""
