from django.urls import path

from shop.views import place, show

urlpatterns = [path("orders", place), path("orders/<int:number>", show, name="order")]
