"""Everything that speaks to RabbitMQ: the only place that imports pika."""
