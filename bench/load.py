"""
What all sides send: one task's arguments, about 200 bytes of JSON.

Only the standard library is imported here, because the peers' processes import it too.
"""

from __future__ import annotations

from typing import Any

QUEUE = "bench"
TEXT = "Your order has left our warehouse and will be with you in two or three working days."


def arguments(index: int) -> dict[str, Any]:
    """Return the arguments of the task with this number."""
    return {
        "index": index,
        "recipient": f"customer-{index:07d}@example.org",
        "subject": f"Order {index:07d} is on its way",
        "text": TEXT,
    }
