"""What a supervisor and its worker processes share, without the app, the broker or pydantic."""
