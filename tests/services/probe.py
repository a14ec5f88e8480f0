"""The example service with one endpoint more, which shows what its process still waits for."""

from __future__ import annotations

from examples.fastapi_service import service
from examples.tasks import app

__all__ = ["service"]


@service.get("/waiting")
async def waiting() -> dict[str, int]:
    carrier = app._async.carriers.current()
    return {"calls": len(carrier.calls), "messages": int(not carrier.publisher.is_idle)}
