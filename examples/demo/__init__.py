"""The demo: the whole path on real input, one task per source file."""
