"""Settings of the project; the tests name the servers in the environment."""

import os

SECRET_KEY = "for tests only"
ALLOWED_HOSTS = ["127.0.0.1"]
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "amqpworker.contrib.django",
    "shop",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
STATIC_URL = "static/"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
ROOT_URLCONF = "config.urls"
WSGI_APPLICATION = "config.wsgi.application"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
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
