"""Closed-loop evaluation: policies, rollouts, statistics and reports."""
