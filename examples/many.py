"""
A task for each row of a table of any size: read lazily, each confirmed, in constant memory.

    amqpworker worker examples.many:app -p 1 --prefetch 256
    python -m examples.many 100000
"""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Iterator

from amqpworker import App, Message, SendError

app = App(default_queue="rows")


# With an explicit name, since this module is also run as a program: it is `__main__` then.
@app.task(name="many.handle", result=False)
def handle(number: int, text: str) -> None:
    """Do something with a row."""


def rows(count: int) -> Iterator[tuple[int, str]]:
    """Yield rows from a cursor."""
    with sqlite3.connect(":memory:") as database:
        yield from database.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) SELECT i, 'row ' || i FROM n",
            (count,),
        )


def messages(count: int) -> Iterator[Message]:
    """Make a message of each row, with the row's id, so that a row that was sent twice can be recognized."""
    for number, text in rows(count):
        yield handle.options(id=f"row-{number}").message(number, text)


def main(count: int) -> None:
    """Send them all, and send those that the broker did not confirm once more."""
    with app:
        failed = [one.message for one in app.send_each(messages(count)) if isinstance(one, SendError) and one.message]
        app.send_many(failed)
    print(f"{count} rows sent, {len(failed)} of them at the second attempt")


if __name__ == "__main__":
    main(int(sys.argv[1]))
