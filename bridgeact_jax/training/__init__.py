"""Training of the action expert: one loop for both stages."""
