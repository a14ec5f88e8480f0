"""
A Flask service that sends and calls tasks.

    gunicorn examples.flask_service:service --worker-class gthread --threads 8 --timeout 90 --graceful-timeout 65
    curl -X POST 'http://127.0.0.1:8000/users/42/welcome'      # the id of the task
    curl 'http://127.0.0.1:8000/prices/pen?pieces=3'           # needs a worker, see examples/tasks.py
"""

from __future__ import annotations

from flask import Flask, request
from flask.typing import ResponseReturnValue

from amqpworker import CallTimeout, InvalidArguments, SendError, Unconfirmed
from examples.tasks import app, price_of, send_welcome

service = Flask(__name__)


@service.post("/users/<int:user_id>/welcome")
def welcome(user_id: int) -> ResponseReturnValue:
    sent = send_welcome.send(user_id, request.args.get("lang", "en"))
    return {"id": sent.id}, 202


@service.get("/prices/<article>")
def price(article: str) -> ResponseReturnValue:
    try:
        pieces = int(request.args.get("pieces", "1"))
    except ValueError:
        return {"detail": "pieces must be a whole number"}, 400
    try:
        return {"cents": price_of.call(article, pieces)}
    except Unconfirmed:  # the connection was lost before the reply; a price may be asked for twice
        return {"cents": price_of.call(article, pieces)}


@service.get("/ready")
def ready() -> ResponseReturnValue:
    app.check()
    return {"ready": True}


@service.errorhandler(InvalidArguments)
def not_valid(error: InvalidArguments) -> ResponseReturnValue:
    service.logger.warning("not valid: %s", error)
    return {"detail": "the request is not valid"}, 400


@service.errorhandler(SendError)
def not_sent(error: SendError) -> ResponseReturnValue:
    service.logger.warning("not sent: %s", error)
    return {"detail": "try again later"}, 503


@service.errorhandler(CallTimeout)
def no_reply(error: CallTimeout) -> ResponseReturnValue:
    service.logger.warning("no reply: %s", error)
    return {"detail": "no reply in time"}, 504
