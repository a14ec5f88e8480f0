"""
What works beside the tasks of a worker process: its checks, its isolated processes; a server for metrics would be one.

Decides when each is called. `assembly` lists them, and `process` calls them, all in the main thread.
"""

from __future__ import annotations


class Service:
    """One of them; what it does not override does nothing. None of its methods but `stop` may wait."""

    def start(self) -> None:
        """Start, once the app's lifespan is entered and before anything is consumed; in the order of the list."""

    def beat(self, now: float) -> None:
        """Do what is due: called a few times per second while the process consumes (`now` is monotonic)."""

    def drain(self) -> None:
        """Do nothing from now on that needs new deliveries: the process stops consuming, and its last tasks still run."""

    def stop(self, grace: float) -> None:
        """End, within `grace` seconds (0 after a second Ctrl-C), once the last tasks have had their time; in reverse order."""
