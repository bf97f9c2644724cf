"""Instructions in several wordings, some of which are kept for evaluation.

What is kept says the same in another order or with another verb; all its words occur in the others.
"""

MATH = (
    "pick the card that answers the whiteboard.",
    "pick up the card with the answer.",
    "look at the whiteboard and take the right card.",
    "take the card that answers the whiteboard.",
    "which card is the answer? pick it up.",
    "on the whiteboard is a question. pick the right card.",
)
MATH_REWORDED = (
    "take the card with the answer.",
    "which card answers the whiteboard? take it.",
    "on the whiteboard is a question. which card is right? pick it up.",
    "pick the right card. look at the whiteboard.",
)
TOYS = (
    "place the {toy} {relation} the {reference}.",
    "put the {toy} {relation} the {reference}.",
    "pick up the {toy} and place it {relation} the {reference}.",
    "take the {toy} and put it {relation} the {reference}.",
    "{relation} the {reference}, place the {toy}.",
)
TOYS_REWORDED = (
    "pick up the {toy} and put it {relation} the {reference}.",
    "take the {toy} and place it {relation} the {reference}.",
    "{relation} the {reference}, put the {toy}.",
    "take the {toy}. {relation} the {reference}, place it.",
)
