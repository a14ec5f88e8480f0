"""The benchmark: amqpworker, its peers and bare clients, side by side on one private node."""
