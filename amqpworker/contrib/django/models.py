"""
A model without a table: it gives the page of results its place in the admin, and its permission.

Nothing is stored in it, and it has no migration: results are in the result stores of the apps.
"""

from __future__ import annotations

from django.db import models

from amqpworker.contrib.django.apps import LABEL


class NoRows(models.Manager):
    """Finds nothing, without asking the database: `manage.py dumpdata` reads all models, also those without a table."""

    def get_queryset(self) -> models.QuerySet:
        """Return an empty query."""
        return super().get_queryset().none()


class Result(models.Model):
    """Who may see results has the permission `amqpworker.view_result`, which `manage.py migrate` creates."""

    id = models.CharField(primary_key=True, max_length=255)

    objects = NoRows()

    class Meta:
        """No table, and no other permission."""

        app_label = LABEL
        managed = False
        base_manager_name = "objects"
        default_permissions = ("view",)
        verbose_name = "task result"
