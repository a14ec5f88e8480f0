"""
The pages of results in Django's admin: the latest ones of a backend in `TASKS`, and one with all that is stored of it.

Decides who may see them: staff with the permission `amqpworker.view_result`. Nothing can be added, changed or deleted.
"""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.admin.utils import quote, unquote
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils.http import urlencode

from amqpworker.app import App
from amqpworker.contrib.django.result_lookup import MOST, STATES, apps_with_results, details, latest
from amqpworker.errors import ConfigError, ResultStoreError

NO_LISTING = "This result store cannot list its results: look one up by its id."


class ResultAdmin(admin.ModelAdmin):
    """Shows results; it is registered with the default site, and can be with others: `site.register(Result, ResultAdmin)`."""

    def get_urls(self) -> list[Any]:
        """Return the two pages, named as those of other models are."""
        pages = [("", self.list_page, "changelist"), ("<path:object_id>/change/", self.result_page, "change")]
        return [
            path(route, self.admin_site.admin_view(page), name=f"{self.opts.app_label}_{self.opts.model_name}_{name}")
            for route, page, name in pages
        ]

    def has_add_permission(self, request: HttpRequest) -> bool:  # noqa: ARG002 - of Django
        """Return False: results come from workers."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:  # noqa: ARG002 - of Django
        """Return False."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:  # noqa: ARG002 - of Django
        """Return False: `manage.py amqpworker results delete` can do it."""
        return False

    def list_page(self, request: HttpRequest) -> HttpResponse:
        """Show the latest results of a backend, in one state or in all, or go to the one whose id is asked for."""
        if (refused := self._refusal(request)) is not None:
            return refused
        apps = apps_with_results()
        alias, state = self._choice(request, apps), request.GET.get("state", "")
        task_id = request.GET.get("id", "").strip()
        rows, problem, status = None, "", 200
        try:
            if task_id and alias and details(apps[alias], task_id) is not None:
                return HttpResponseRedirect(self._url_of(task_id, alias))
            rows = latest(apps[alias], state) if alias else None
            if task_id:
                problem = "Nothing is stored with this id: it was not sent, or its result has expired."
            elif rows is None:
                problem = NO_LISTING if alias else "No backend in TASKS stores results."
        except (ResultStoreError, ConfigError) as error:
            problem, status = str(error), 503
        listed = [(row, self._url_of(row.id, alias)) for row in rows or ()]
        shown = {"rows": listed, "problem": problem, "states": STATES, "state": state, "task_id": task_id, "most": MOST}
        return self._page(request, "results", "Task results", {**shown, "aliases": list(apps), "alias": alias}, status)

    def result_page(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Show all that is stored of a message."""
        if (refused := self._refusal(request)) is not None:
            return refused
        apps, task_id = apps_with_results(), unquote(object_id)
        alias = self._choice(request, apps)
        try:
            shown = details(apps[alias], task_id) if alias else None
        except (ResultStoreError, ConfigError) as error:
            return self._page(request, "result", task_id, {"problem": str(error)}, 503)
        if shown is None:
            raise Http404("Nothing is stored with this id.")
        return self._page(request, "result", task_id, {"details": shown})

    def _refusal(self, request: HttpRequest) -> HttpResponse | None:
        if not self.has_view_permission(request):
            raise PermissionDenied
        return None if request.method in {"GET", "HEAD"} else HttpResponseNotAllowed(["GET", "HEAD"])

    def _choice(self, request: HttpRequest, apps: dict[str, App]) -> str:
        alias = request.GET.get("backend", "")
        if alias and alias not in apps:
            raise Http404("No backend in TASKS with this alias stores results.")
        return alias or next(iter(apps), "")

    def _url_of(self, task_id: str, alias: str) -> str:
        name = f"admin:{self.opts.app_label}_{self.opts.model_name}_change"
        url = reverse(name, args=[quote(task_id)], current_app=self.admin_site.name)
        return f"{url}?{urlencode({'backend': alias})}"

    def _page(
        self, request: HttpRequest, name: str, title: str, values: dict[str, Any], status: int = 200
    ) -> HttpResponse:
        context = {**self.admin_site.each_context(request), "opts": self.opts, "title": title, **values}
        request.current_app = self.admin_site.name
        return TemplateResponse(request, f"amqpworker/{name}.html", context, status=status)
