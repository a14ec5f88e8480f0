"""The `amqpworker` program."""
