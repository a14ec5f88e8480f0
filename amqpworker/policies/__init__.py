"""What is set for a task or a message: retries, time limits and send options."""
