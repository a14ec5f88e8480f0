"""Time limits: for a task in a thread, for a coroutine, and the broker's ack timeout."""
