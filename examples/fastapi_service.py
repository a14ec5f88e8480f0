"""
A FastAPI service that sends and calls tasks.

    uvicorn examples.fastapi_service:service --workers 2 --timeout-graceful-shutdown 65
    curl -X POST 'http://127.0.0.1:8000/users/42/welcome'      # the id of the task
    curl 'http://127.0.0.1:8000/prices/pen?pieces=3'           # needs a worker, see examples/tasks.py
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from amqpworker import CallTimeout, SendError, Unconfirmed
from examples.tasks import app, price_of, send_welcome


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    async with app:
        yield


service = FastAPI(lifespan=lifespan)
log = logging.getLogger(__name__)


@service.post("/users/{user_id}/welcome", status_code=202)
async def welcome(user_id: int, lang: str = "en") -> dict[str, str]:
    sent = await send_welcome.asend(user_id, lang)
    return {"id": sent.id}


@service.get("/prices/{article}")
async def price(article: str, pieces: int = 1) -> dict[str, int]:
    try:
        return {"cents": await price_of.acall(article, pieces)}
    except Unconfirmed:  # the connection was lost before the reply; a price may be asked for twice
        return {"cents": await price_of.acall(article, pieces)}


@service.get("/ready")
async def ready() -> dict[str, bool]:
    await app.acheck()
    return {"ready": True}


@service.exception_handler(SendError)
async def not_sent(_: Request, error: Exception) -> JSONResponse:
    log.warning("not sent: %s", error)
    return JSONResponse({"detail": "try again later"}, 503)


@service.exception_handler(CallTimeout)
async def no_reply(_: Request, error: Exception) -> JSONResponse:
    log.warning("no reply: %s", error)
    return JSONResponse({"detail": "no reply in time"}, 504)
