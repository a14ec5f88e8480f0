"""A million delayed tasks, once: how fast they are sent, what the broker takes for them, and how long a list of them takes."""

from __future__ import annotations

from bench.context import Bench
from bench.pending_tasks import fill, listed
from bench.places import SideSkipped, resident
from bench.row import Figures, Measure, Row
from bench.rows import OPERATING

COUNT = 1_000_000
MIB = 1 << 20


def ours(bench: Bench) -> Figures:
    """Fill one level of the ladder, and list it."""
    broker, count = bench.broker, bench.count(COUNT)
    if broker.pid is None or broker.folder is None:
        raise SideSkipped("the broker's process and folder are not known")
    pid = broker.pid
    with bench.place() as place:
        memory, disk = resident(pid), broker.disk_bytes()
        rate = fill(place, 0, count)
        broker.wait_until_idle()
        highest = filled = resident(pid)
        filled_disk = broker.disk_bytes()

        def look() -> None:
            nonlocal highest
            highest = max(highest, resident(pid))

        command = listed(place, count, look)
        broker.wait_until_idle()
        return {
            "messages/s sent": rate,
            "s to list": command.seconds,
            "s, longest walk": command.longest_walk(),
            "MiB of client": command.peak / MIB,
            "MiB more of broker": (filled - memory) / MIB,
            "MiB more of broker, at most": (highest - memory) / MIB,
            "MiB more on disk": ((filled_disk or 0) - (disk or 0)) / MIB,
            "MiB more of broker, after": (resident(pid) - memory) / MIB,
        }


ROW = Row(
    "pending-million",
    "1,000,000 pending tasks, once",
    (Measure("amqpworker", "`send_many`, then `pending list --json --yes`", ours),),
    (),
    "All wait for an hour. Memory is resident: of the broker more than before they were sent, when they had been, at most "
    "while they were listed, and some time after. The disk is that of the node's folder, log segments that will be deleted "
    "included.",
    section=OPERATING,
    once=True,
)
