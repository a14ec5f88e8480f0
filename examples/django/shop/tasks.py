"""The worker imports the module `tasks` of each app in INSTALLED_APPS."""

from amqpworker.contrib.django import task
from shop.models import Order

CENTS = 120


@task(queue_name="invoices", retry=[1, 5, 30], time_limit=60)
def write_invoice(order_id: int) -> dict[str, int]:
    """Write the text of an invoice: a second time it is the same, so that the task may run twice."""
    order = Order.objects.get(pk=order_id)
    cents = order.pens * CENTS
    order.invoice = f"Order {order.pk}: {order.pens} pens, {cents / 100:.2f} EUR"
    order.save(update_fields=["invoice"])
    return {"cents": cents}
