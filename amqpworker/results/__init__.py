"""Where answers and results go: one contract, several stores."""
