"""Errors a user can cause: shown as one line, never as a traceback."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """The work failed for a reason the user can act on: what, where, what would be right."""

    exit_status = 1


class UsageError(UserError):
    """The command line or a config is wrong."""

    exit_status = 2


def nearest(word: str, choices: Iterable[str], *, list_at_most: int = 20) -> str:
    """Phrase that ends "unknown x 'word': ...": the nearest valid word, or all of a short list."""
    by_lower = {choice.lower(): choice for choice in choices}
    if not by_lower:
        return "there are none"
    close = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.5)
    if not close and len(by_lower) <= list_at_most:
        return "choose from " + ", ".join(sorted(by_lower.values()))
    close = close or difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.0)
    return f"did you mean '{by_lower[close[0]]}'?"
