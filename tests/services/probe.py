"""The example service with one endpoint more, which shows what its process still waits for."""

from __future__ import annotations

from examples.fastapi_service import service
from examples.tasks import app
from tests.leftovers import publisher_of

__all__ = ["service"]


@service.get("/waiting")
async def waiting() -> dict[str, int]:
    publisher = publisher_of(app)
    return {"calls": len(publisher.session.calls), "messages": int(not publisher.is_idle)}
