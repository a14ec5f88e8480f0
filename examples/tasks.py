"""
The tasks of the two services beside this file, and of their workers.

    amqpworker worker examples.tasks:app -p 2 -t 8
"""

from __future__ import annotations

from amqpworker import App

app = App()


@app.task(queue="emails")
def send_welcome(user_id: int, lang: str = "en") -> None:
    """Write to a user; a real one remembers `current().id`, so that a second run sends no second letter."""


@app.task(queue="prices", retry=None)
def price_of(article: str, pieces: int) -> int:
    """Return a price in cents."""
    return 100 * len(article) * pieces
