"""The words of every text a model reads or writes.

Their order is part of trained models: words are only ever added at the end.
"""

WORDS: tuple[str, ...] = (
    # what is thought
    "on", "the", "whiteboard", "is", "there", "are", "left", "middle", "right", "i", "should",
    "pick", "from", "over", "open", "close", "a", "an", "and", "place", "it", "of", "in", "front",
    "behind", "card", "cards", "number", "numbers",
    # toys
    "red", "blue", "yellow", "green", "purple", "orange", "white", "grey",
    "cube", "brick", "can", "disc", "toy", "cubes", "bricks", "cans", "discs", "toys",
    # instructions and questions
    "that", "answers", "answer", "up", "with", "look", "at", "take", "put", "which", "what",
    "question", "this", "where", "colour", "how", "many", "point", "work", "out",
)
