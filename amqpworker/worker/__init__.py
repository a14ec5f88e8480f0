"""A worker process: deliveries in, outcomes settled."""
