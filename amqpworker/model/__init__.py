"""Values that every part shares: messages, outcomes, headers and replies."""
