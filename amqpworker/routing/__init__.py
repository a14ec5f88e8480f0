"""Where a message goes: names of exchanges and queues, the delay ladder, and what is published."""
