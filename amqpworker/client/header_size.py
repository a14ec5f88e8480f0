"""Which headers of a user fit into a message: those that AMQP can carry, and that leave room for ours."""

from __future__ import annotations

from collections.abc import Mapping

from amqpworker.broker.amqp.table_encode import encode_table
from amqpworker.errors import InvalidArguments
from amqpworker.model.message import HeaderValue

# All headers of a message are smaller than 64 KiB (docs/wire.md), including those that describe why it is dead.
MAX_HEADER_BYTES = 16 * 1024


def check_header_size(headers: Mapping[str, HeaderValue]) -> None:
    """Refuse headers that AMQP cannot carry, or that leave no room for ours."""
    try:
        size = len(encode_table(dict(headers)))
    except ValueError as error:
        raise InvalidArguments(f"options(headers=…): {error}.") from error
    if size > MAX_HEADER_BYTES:
        raise InvalidArguments(
            f"options(headers=…): they have {size} bytes, more than {MAX_HEADER_BYTES}: put large values into the "
            f"task's arguments."
        )
