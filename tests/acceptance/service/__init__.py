"""
The processes under test: a service that sends, and an app whose tasks workers run.

This folder is on their PYTHONPATH; the package itself they have from the interpreter that runs them.
"""
