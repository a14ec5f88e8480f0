"""One view: it stores an order and enqueues its task in one transaction."""

from django.urls import path
from shop.views import order

urlpatterns = [path("order", order)]
