"""What runs in processes of its own while the bench measures: tasks, publishers, bare clients."""
