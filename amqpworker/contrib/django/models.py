"""
A model without a table: it gives the page of results its place in the admin, and its permission.

Nothing is stored in it, and it has no migration: results are in the result stores of the apps.
"""

from __future__ import annotations

from django.db import models

from amqpworker.contrib.django.apps import LABEL


class Result(models.Model):
    """Who may see results has the permission `amqpworker.view_result`, which `manage.py migrate` creates."""

    id = models.CharField(primary_key=True, max_length=255)

    class Meta:
        """No table, and no other permission."""

        app_label = LABEL
        managed = False
        default_permissions = ("view",)
        verbose_name = "task result"
