"""Examples: each file is one idea on one screen; `demo/` is what `make demo` runs."""
