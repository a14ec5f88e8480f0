"""One view: it stores an order and enqueues its task in one transaction."""

from django.db import transaction
from django.http import HttpRequest, HttpResponse

from shop.models import Order
from shop.tasks import complete


def order(request: HttpRequest) -> HttpResponse:
    """Store an order; a request with `fail` is rolled back."""
    with transaction.atomic():
        made = Order.objects.create()
        complete.enqueue(made.pk)
        if "fail" in request.GET:
            transaction.set_rollback(True)
    return HttpResponse(str(made.pk))
