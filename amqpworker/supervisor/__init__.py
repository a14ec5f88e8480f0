"""The parent of the worker processes: what it decides (`fleet`), and what acts on that."""
