"""`bridgeact datasets [NAME]`: the dataset cards as a table, or one card in full."""

from bridgeact_jax.datasets.cards import Card, card_paths, load_card

HEADINGS = ("name", "title", "robot", "rate", "rotation", "gripper", "cloud", "licence")


def cards_table() -> str:
    """All shipped cards, one line each."""
    rows = [HEADINGS, *(_row(load_card(name)) for name in card_paths())]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    rows.insert(1, tuple("-" * width for width in widths))
    return "\n".join(
        "  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _row(card: Card) -> tuple[str, ...]:
    rotation = card.rotation
    words = (rotation.convention.replace("_", "-"), rotation.axes, rotation.order)
    return (
        card.name,
        card.title,
        card.robot,
        f"{card.clock.hz:g} Hz" if card.clock.hz else "by time",
        f"{' '.join(word for word in words if word)} ({rotation.claim})",
        f"{card.gripper.source} ({card.gripper.claim})",
        "yes" if card.cloud else "no",
        card.licence,
    )


def define_flags() -> None:
    """The command has no flags."""


def main(argv: list[str]) -> None:
    if len(argv) < 2:
        print(cards_table())
    for name in argv[1:]:
        print(load_card(name).path.read_text(encoding="utf-8").rstrip())
