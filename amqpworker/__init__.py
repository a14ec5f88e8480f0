"""amqpworker: background work on RabbitMQ."""
