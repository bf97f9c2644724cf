"""Training: one loop, and what the action expert brings to it."""
