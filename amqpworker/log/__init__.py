"""Log lines: their fields, their form, and how they are written."""
