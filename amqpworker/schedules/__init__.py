"""Schedules: what each is, and at which times its task is sent."""
