"""Time limits: of a task in a thread, of a coroutine, and of the broker."""
