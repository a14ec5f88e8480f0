from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseBadRequest, JsonResponse
from django.shortcuts import get_object_or_404, redirect
from django.views.decorators.http import require_POST

from shop.models import Order
from shop.tasks import write_invoice

try:
    from django.tasks.exceptions import TaskResultDoesNotExist
except ImportError:  # Django 5.2
    from django_tasks.exceptions import TaskResultDoesNotExist


@require_POST
def place(request: HttpRequest) -> HttpResponse:
    """Store an order; after the commit its task is sent, so that the worker finds the row."""
    pens = request.POST.get("pens", "")
    if not pens.isdecimal() or not 0 < int(pens) <= 1000:
        return HttpResponseBadRequest("pens: a number from 1 to 1000\n")
    with transaction.atomic():
        order = Order.objects.create(pens=int(pens))
        order.task_id = write_invoice.enqueue(order.pk).id
        order.save(update_fields=["task_id"])
    return redirect("order", order.pk)


def show(request: HttpRequest, number: int) -> JsonResponse:
    """Show an order and how its task is doing."""
    order = get_object_or_404(Order, pk=number)
    try:
        result = write_invoice.get_result(order.task_id)
    except TaskResultDoesNotExist:  # not sent yet, or done more than a day ago
        return JsonResponse({"invoice": order.invoice, "status": "UNKNOWN", "value": None})
    value = result.return_value if result.status == "SUCCESSFUL" else None
    return JsonResponse({"invoice": order.invoice, "status": result.status, "value": value})
