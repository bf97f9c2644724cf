"""Planners: from a task to waypoints."""
