"""Settings for development: orders in one SQLite file, results in another; the broker is that of AMQPWORKER_URL."""

from pathlib import Path

FOLDER = Path(__file__).parent
DEBUG = True
SECRET_KEY = "for this example only"
INSTALLED_APPS = ["amqpworker.contrib.django", "shop"]
ROOT_URLCONF = "shop.urls"
USE_TZ = True
TIME_ZONE = "UTC"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": FOLDER / "shop.db",
        # The worker and the server write the same file: each transaction waits for the other's from its begin.
        "OPTIONS": {"transaction_mode": "IMMEDIATE", "timeout": 20},
    }
}
TASKS = {
    "default": {
        "BACKEND": "amqpworker.contrib.django.AmqpWorkerBackend",
        "QUEUES": ["invoices"],
        "OPTIONS": {"results": f"sqlite:///{FOLDER / 'results.db'}"},
    }
}
