"""What a task takes and returns: its parameters, their types, and how they become JSON and back."""
