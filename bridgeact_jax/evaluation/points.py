"""Points for what was read and concluded, as the report and the terminal show them.

`results` are contents of `results.json`, one per condition, each with a `label`.
"""

from collections.abc import Mapping, Sequence
from html import escape

from bridgeact_jax.evaluation.figures import words
from bridgeact_jax.evaluation.text import aligned


def table(results: Sequence[Mapping]) -> str:
    """The points as aligned text, one line per condition, task and name; "" where there are none.
    """
    rows = [
        (
            result["label"], name, words(what), f"{found['mean']:.2f} of {found['out_of']}",
            _span(found), str(task["unparsable"]),
        )
        for result, name, task in _thoughtful(results)
        for what, found in task["points"].items()
    ]  # fmt: skip
    head = ("condition", "task", "points", "mean", "95 % interval", "unparsable texts")
    return aligned([head, *rows], left=(0, 1, 2)) if rows else ""


def section(results: Sequence[Mapping]) -> str:
    """The points as a section of the page; "" where there are none."""
    rows = []
    for result, name, task in _thoughtful(results):
        cells = "".join(
            f'<td class="n">{words(what)} <b>{found["mean"]:.2f}</b> of {found["out_of"]}'
            f"<small>{_span(found)}</small></td>"
            for what, found in task["points"].items()
        )
        rows.append(
            f'<tr><th scope="row">{escape(words(name))}</th><td>{escape(result["label"])}</td>'
            f'{cells}<td class="n">{task["unparsable"]}</td></tr>'
        )
    if not rows:
        return ""
    return (
        '<section><h2>Reading and reasoning</h2><div class="scroll"><table><thead><tr>'
        '<th scope="col">task</th><th scope="col">condition</th><th scope="col" class="n" '
        'colspan="2">mean points</th><th scope="col" class="n">unparsable texts</th></tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div><p class='small'>Of what was said before the "
        "arm moved. OCR: numbers 1, cards 1, signs 2; math: answer 1, card 1. Small figures: 95 % "
        "Wilson intervals.</p></section>"
    )


def _thoughtful(results: Sequence[Mapping]) -> list[tuple[Mapping, str, Mapping]]:
    """(result, task's name, task) where a model thought in words."""
    return [(r, n, task) for r in results for n, task in r["tasks"].items() if "points" in task]


def _span(found: Mapping) -> str:
    low, high = found["ci95"]
    return f"{low:.2f}–{high:.2f}"
