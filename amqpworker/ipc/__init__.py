"""What a supervisor and its worker processes share; nothing here knows the app, the broker or pydantic."""
