"""Other languages: their clients, run against a worker of ours, and the descriptions of tasks that their tools read."""
