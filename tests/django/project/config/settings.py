"""Settings of the project; the tests name the servers in the environment."""

import os

SECRET_KEY = "for tests only"
ALLOWED_HOSTS = ["127.0.0.1"]
INSTALLED_APPS = ["amqpworker.contrib.django", "shop"]
ROOT_URLCONF = "config.urls"
WSGI_APPLICATION = "config.wsgi.application"
USE_TZ = True
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": "postgres",
        "USER": "postgres",
        "HOST": "127.0.0.1",
        "PORT": os.environ["SHOP_DATABASE_PORT"],
        "CONN_MAX_AGE": None,
        "CONN_HEALTH_CHECKS": True,
    }
}
TASKS = {
    "default": {
        "BACKEND": "amqpworker.contrib.django.AmqpWorkerBackend",
        "QUEUES": ["default", "emails"],
        "OPTIONS": {"url": os.environ["SHOP_BROKER"], "results": os.environ["SHOP_RESULTS"]},
    },
    "at-once": {
        "BACKEND": "amqpworker.contrib.django.AmqpWorkerBackend",
        "QUEUES": ["at-once"],
        "OPTIONS": {"url": os.environ["SHOP_BROKER"], "namespace": "at-once", "on_commit": False},
    },
    "named": {
        "BACKEND": "amqpworker.contrib.django.AmqpWorkerBackend",
        "OPTIONS": {"app": "shop.own_app:app"},
    },
}
