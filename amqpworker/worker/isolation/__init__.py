"""Tasks that run in a process of their own, and messages that may have crashed a process."""
