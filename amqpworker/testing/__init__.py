"""A private RabbitMQ node for development, tests and the demo."""
