"""`bridgeact datasets [NAME]`: the dataset cards and mixtures as tables, or one card in full."""

from bridgeact_jax.datasets.card_format import Card, Rotation
from bridgeact_jax.datasets.cards import card_paths, load_card
from bridgeact_jax.datasets.mixture import load_mixture, mixture_paths

LINE = 160
MISSING = "not recorded"
# heading and the most letters of a cell
COLUMNS = {
    "name": 41,
    "robot": 22,
    "rate": 7,
    "rotation": 33,
    "gripper": 20,
    "clouds": 10,
    "licence": 15,
}


def cards_table() -> str:
    """All shipped cards, one line each of at most LINE letters, and how many there are.

    Those that can be converted come first, then the refused ones with their reasons.
    """
    cards = [load_card(name) for name in card_paths()]
    usable = [card for card in cards if card.refused is None]
    refused = [card for card in cards if card.refused is not None]
    rows = [tuple(COLUMNS), *map(_row, usable)]
    heads = [_cells(card.name, card.robot) for card in refused]
    widths = [
        max(len(row[column]) for row in rows + heads if column < len(row))
        for column in range(len(COLUMNS))
    ]
    rows.insert(1, tuple("-" * width for width in widths))
    lines = [_line(row, widths) for row in rows]
    for card, head in zip(refused, heads, strict=True):
        line = f"{_line((*head, 'refused:'), widths)} {card.refused}"
        lines.append(_cut(line, LINE))
    return "\n".join([*lines, "", _summary(usable, refused)])


def mixtures_table() -> str:
    """All shipped mixtures, one line each; empty if there are none."""
    mixtures = [load_mixture(name) for name in mixture_paths()]
    width = max((len(mixture.name) for mixture in mixtures), default=0)
    return "\n".join(
        f"mixture {mixture.name:{width}}  {len(mixture.datasets):>2} datasets, weights "
        f"{mixture.weights}: {mixture.title}"
        for mixture in mixtures
    )


def card_text(name: str) -> str:
    """The card called `name` in full; a refusal comes first. Errors: those of `load_card`."""
    card = load_card(name)
    text = card.path.read_text(encoding="utf-8").rstrip()
    if card.refused is None:
        return text
    return f"{card.name} cannot be converted: {card.refused}\n\n{text}"


def _row(card: Card) -> tuple[str, ...]:
    return _cells(
        card.name,
        card.robot,
        f"{card.clock.hz:g} Hz" if card.clock.hz else "by time",
        _rotation(card.rotation) if card.rotation else MISSING,
        f"{card.gripper.source} ({card.gripper.claim})" if card.gripper else MISSING,
        _clouds(card),
        card.licence,
    )


def _rotation(rotation: Rotation) -> str:
    words = (rotation.convention.replace("_", "-"), rotation.axes, rotation.order)
    what = "yaw only" if rotation.yaw_only else " ".join(word for word in words if word)
    return f"{what} ({rotation.claim})"


def _clouds(card: Card) -> str:
    if card.cloud or any(not camera.lacks for camera in card.cameras):
        return "yes"
    return "depth only" if card.cameras else "no"


def _cells(*texts: str) -> tuple[str, ...]:
    return tuple(map(_cut, texts, COLUMNS.values()))


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1].rstrip() + "…"


def _line(row: tuple[str, ...], widths: list[int]) -> str:
    cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=False))
    return "  ".join(cells).rstrip()


def _summary(usable: list[Card], refused: list[Card]) -> str:
    rotations = [card.recorded["rotation"] for card in usable]
    parts = [
        f"{len(usable)} can be converted: {rotations.count('full')} with full rotation",
        f"{rotations.count('yaw')} with yaw only",
        f"{rotations.count('none')} without",
        f"{sum(card.recorded['gripper'] for card in usable)} with a gripper",
        f"{sum(_clouds(card) == 'yes' for card in usable)} with clouds",
    ]
    return f"{', '.join(parts)}; {len(refused)} refused"


def define_flags() -> None:
    """The command has no flags."""


def main(argv: list[str]) -> None:
    if len(argv) < 2:
        print(f"{cards_table()}\n\n{mixtures_table()}".rstrip())
    for name in argv[1:]:
        print(card_text(name))
