"""What is kept for the open world, by a rule that depends on the thing's name alone.

The open world of a task is all of which the robot's training data holds no example, although
pictures with questions and answers may speak of it: equations, sets of cards, arrangements and
hands of writing (math matching), toys, and relations of a toy (toy placement).
"""

import hashlib


def is_held_out(name: str, share: float) -> bool:
    """Whether the thing called `name` is kept for the open world; true for `share` of all names."""
    digest = hashlib.sha256(name.encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64
