"""Orders, and which of their tasks have run."""

from django.db import models


class Order(models.Model):
    """An order; its task sets `is_done`."""

    is_done = models.BooleanField(default=False)


class Signalled(models.Model):
    """A signal that a worker has received."""

    signal = models.CharField(max_length=20)
    task_id = models.CharField(max_length=64)
    status = models.CharField(max_length=20)
    value = models.CharField(max_length=200)
