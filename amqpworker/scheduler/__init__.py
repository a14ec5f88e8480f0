"""The scheduler process: one of all that have the same name leads, and sends the ticks of the schedules."""
