"""
The task that the clients in this folder send and call.

    amqpworker worker tasks:app
"""

from __future__ import annotations

from amqpworker import App

app = App()


@app.task(name="shop.welcome", queue="welcomes", retry=None)  # a caller waits: no retries
def welcome(user_id: int, lang: str = "en") -> str:
    """Welcome a user; there are none with negative ids."""
    if user_id < 0:
        raise LookupError(f"no user {user_id}")
    return f"user {user_id} was welcomed in {lang}"
