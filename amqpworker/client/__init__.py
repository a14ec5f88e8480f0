"""The sending side: messages out, replies and results back."""
