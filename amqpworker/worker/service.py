"""
The services of a worker process: its checks, its isolated processes, the app's own code; a server for metrics would be one.

Decides when each is called. `assembly` lists them, and `main_thread` calls them, all in the main thread.
"""

from __future__ import annotations


class Service:
    """One service; a method that it does not override does nothing. Only `stop` may wait."""

    def start(self) -> None:
        """Start, once the app's lifespan is entered and before anything is consumed; in the order of the list."""

    def beat(self, now: float) -> None:
        """Do what is due: called a few times per second while the process consumes (`now` is monotonic)."""

    def drain(self) -> None:
        """Stop what needs new deliveries: the process stops consuming, and its last tasks still run."""

    def stop(self, grace: float) -> None:
        """End, within `grace` seconds (0 after a second Ctrl-C), once the last tasks have had their time; in reverse order."""
