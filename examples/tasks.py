"""
Tasks that fastapi_service.py and flask_service.py send.

    amqpworker worker examples.tasks:app -p 2 -t 8
"""

from __future__ import annotations

from amqpworker import App

app = App()


@app.task(queue="examples.welcomes")
def send_welcome(user_id: int, lang: str = "en") -> None:
    """Write to a user; a real task would skip a `current().id` that it has seen before."""


@app.task(queue="examples.prices", retry=None)  # a caller waits: no retries
def price_of(article: str, pieces: int) -> int:
    """Return a price in cents."""
    return 100 * len(article) * pieces
