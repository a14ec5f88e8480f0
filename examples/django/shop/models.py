from django.db import models


class Order(models.Model):
    """An order of some pens; `task_id` names the task that writes its invoice."""

    pens = models.PositiveIntegerField()
    task_id = models.CharField(max_length=64)
    invoice = models.CharField(max_length=200, default="")
