"""The admin, and a view that stores an order and enqueues its task in one transaction."""

from django.contrib import admin
from django.urls import path
from shop.views import order

urlpatterns = [path("order", order), path("admin/", admin.site.urls)]
