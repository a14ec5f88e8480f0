"""The parent of the worker processes: `fleet` decides, `supervisor` acts."""
