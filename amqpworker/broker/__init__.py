"""Everything that speaks AMQP: the only place that imports pika."""
