"""The action expert: pure functions of parameters and arrays."""
