"""Parts for frameworks; each is imported only by those who use the framework, which amqpworker itself does not require."""
