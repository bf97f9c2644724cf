"""An evaluation as one HTML page that opens offline, and as a table for the terminal.

`results` are contents of `results.json`, one per condition, each with a `label`.
"""

import base64
import importlib.metadata
import json
import os
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from bridgeact_jax import __version__
from bridgeact_jax.evaluation import figures, plots, points
from bridgeact_jax.evaluation.figures import pooled, task_names, words
from bridgeact_jax.evaluation.media import Media
from bridgeact_jax.evaluation.statistics import HORIZONS
from bridgeact_jax.evaluation.text import aligned
from bridgeact_jax.files import write_text
from bridgeact_jax.sim.tasks import HELD_OUT

STYLE = (Path(__file__).parent / "report.css").read_text()
PACKAGES = ("jax", "flax", "mujoco", "numpy")
LONG_TABLE = 24  # rows from which a table is folded
SETTINGS = ("policy", "planner", "suite", "seed", "arm", "ablation", "checkpoint")


def write_report(
    path: str | os.PathLike,
    results: Sequence[Mapping],
    *,
    title: str,
    media: Sequence[Media] = (),
    notes: Sequence[str] = (),
    commands: Sequence[str] = (),
    config: Mapping | None = None,
) -> None:
    """Write the page to `path`, atomically.

    Args:
      results: conditions in the order they are shown; one label per condition.
      notes: paragraphs under the title.
      commands: the command lines that repeat the evaluation.
      config: settings worth keeping beside the figures, shown as JSON.
    """
    body = [f"<header><h1>{escape(title)}</h1>", *(f"<p>{escape(note)}</p>" for note in notes)]
    body += ["</header>", _summary(results), figures.success_section(results)]
    body += [figures.failure_section(results), _tasks(results), points.section(results)]
    body += [_planning(results)]
    body += [_gallery(media)]
    body += [_reproduction(results, commands, config)]
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>"
        f"<body><main>{''.join(body)}</main></body></html>\n"
    )
    write_text(path, page)


def format_table(results: Sequence[Mapping]) -> str:
    """The results as aligned text, one line per condition and task."""
    rows = [("condition", "task", "success", "rate", "95 % interval", "sub-goals", "failures")]
    for result in results:
        for name, task in result["tasks"].items():
            low, high = task["ci95"]
            rows.append(
                (
                    result["label"],
                    name,
                    f"{task['successes']}/{task['episodes']}",
                    _percent(task["success_rate"]),
                    f"{_percent(low)} to {_percent(high)}",
                    _percent(task["subgoal_share"]),
                    _counts(task["failures"]),
                )
            )
    table = aligned(rows, left=(0, 1, 6))
    thought = points.table(results)
    return f"{table}\n\n{thought}" if thought else table


def _percent(rate: float | None) -> str:
    return "–" if rate is None else f"{100 * rate:.0f} %"


def _counts(counts: Mapping[str, int]) -> str:
    kinds = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count} {words(kind)}" for kind, count in kinds)


def _of_horizon(result: Mapping, horizon: str | None = None) -> dict:
    tasks = result["tasks"].values()
    return pooled([task for task in tasks if horizon in (None, task["horizon"])])


def _axes(result: Mapping) -> str:
    """The axes that are not off, in words."""
    on = {name: figures.value_of(result, name) for name in figures.SWEEPS}
    off = {name: values[0] for name, values in figures.SWEEPS.items()}
    found = [
        f"{words(n)} {v:g}" if isinstance(v, float) else f"{words(n)} {v}"
        for n, v in on.items() if v not in (off[n], None)
    ]  # fmt: skip
    return ", ".join(found) or "none"


def _summary(results: Sequence[Mapping]) -> str:
    present = [h for h in HORIZONS if any(_of_horizon(r, h)["episodes"] for r in results)]
    columns = [*present, None] if len(present) > 1 else present
    head = "".join(f'<th scope="col" class="n">{horizon or "all"}</th>' for horizon in columns)
    rows = []
    for result in results:
        cells = "".join(
            f'<td class="n">{_rate_cell(_of_horizon(result, horizon))}</td>' for horizon in columns
        )
        rows.append(
            f'<tr><th scope="row">{escape(result["label"])}</th>{cells}'
            f'<td class="f">{escape(_axes(result))}</td></tr>'
        )
    return (
        '<section><h2>Success by horizon</h2><div class="scroll"><table><thead><tr>'
        f'<th scope="col">condition</th>{head}<th scope="col">disturbed by</th></tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
        "<p class='small'>Small figures: 95 % Wilson interval and number of episodes. An episode "
        "whose physics diverged counts as a failure.</p></section>"
    )


def _rate_cell(counts: Mapping) -> str:
    if counts["episodes"] == 0:
        return "–"
    low, high = counts["ci95"]
    return (
        f"<b>{_percent(counts['success_rate'])}</b>"
        f"<small>{_percent(low)[:-2]}–{_percent(high)[:-2]}, n = {counts['episodes']}</small>"
    )


def _tasks(results: Sequence[Mapping]) -> str:
    curves = figures.curves_of(results)
    colours = [figures.colours_of(curves)[curve] for curve in curves]
    several = len(results) > 1
    bodies, length = [], 0
    for name in task_names(results):
        found = [(i, r, r["tasks"][name]) for i, r in enumerate(results) if name in r["tasks"]]
        length += len(found)
        rows = []
        for row, (index, result, task) in enumerate(found):
            first = (
                f'<th scope="rowgroup" rowspan="{len(found)}">{escape(words(name))}'
                f"<small>{escape(str(task['horizon'] or '–'))}"
                f"{', held out' if name in HELD_OUT else ''}</small></th>"
            )
            low, high = task["ci95"]
            rate = task["success_rate"]
            bar = plots.interval_bar(rate or 0.0, low, high, colours[index])
            rows.append(
                f"<tr>{first if row == 0 else ''}"
                + (f'<td class="w">{escape(result["label"])}</td>' if several else "")
                + f'<td class="n">{task["successes"]}/{task["episodes"]}</td>'
                f'<td class="n"><b>{_percent(rate)}</b></td><td>{bar}</td>'
                f'<td class="n">{_percent(low)[:-2]}–{_percent(high)}</td>'
                f"<td>{_subgoals(task)}</td>"
                f'<td class="n">{task["invalid"]}</td>'
                f'<td class="f">{escape(_counts(task["failures"]))}</td></tr>'
            )
        bodies.append(f"<tbody>{''.join(rows)}</tbody>")
    table = (
        '<div class="scroll"><table class="tasks"><thead><tr><th scope="col">task</th>'
        + ('<th scope="col">condition</th>' if several else "")
        + '<th scope="col" class="n">episodes</th><th scope="col" colspan="2" class="c">success'
        '</th><th scope="col" class="n">95 % interval</th><th scope="col">sub-goals reached</th>'
        '<th scope="col" class="n">invalid</th><th scope="col">failures</th></tr></thead>'
        f"{''.join(bodies)}</table></div>"
    )
    if length > LONG_TABLE:
        table = f"<details><summary>{length} rows</summary>{table}</details>"
    note = "<p class='small'>Held out: not among the tasks of the expert's demonstrations.</p>"
    return f"<section><h2>Every task</h2>{table}{note}</section>"


def _planning(results: Sequence[Mapping]) -> str:
    """What the planner was asked, where that was more than one plan an episode."""
    rows = [
        f'<tr><th scope="row">{escape(words(name))}</th><td>{escape(result["label"])}</td>'
        f'<td class="n">{task["episodes"]}</td><td class="n">{task["planning"]["answers"]}</td>'
        f'<td class="f">{escape(_counts(task["planning"]["refused"]) or "–")}</td>'
        f'<td class="f">{escape(_counts(task["planning"]["alarms"]) or "–")}</td></tr>'
        for result in results
        for name, task in result["tasks"].items()
        if "planning" in task
    ]
    if not rows:
        return ""
    return (
        '<section><h2>Planning</h2><div class="scroll"><table><thead><tr><th scope="col">task</th>'
        '<th scope="col">condition</th><th scope="col" class="n">episodes</th>'
        '<th scope="col" class="n">answers</th><th scope="col">plans refused</th>'
        '<th scope="col">stops on the way</th></tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div></section>"
    )


def _subgoals(task: Mapping) -> str:
    """Partial credit: the share reached, and how far the episodes got."""
    share = task["subgoal_share"]
    if share is None:
        return "–"
    parts = [f"{words(name)} {count}" for name, count in task["subgoals"].items()]
    return f"{_percent(share)}<small>{escape(', '.join(parts))}</small>"


def _gallery(media: Sequence[Media]) -> str:
    groups: dict[str, list[str]] = {}
    for item in media:
        tag = {True: "success", False: "failure", None: ""}[item.success]
        encoded = base64.b64encode(item.data).decode()
        groups.setdefault(item.group, []).append(
            f'<figure class="{tag}"><img alt="{escape(item.caption)}" '
            f'src="data:{item.mime};base64,{encoded}"><figcaption>'
            + (f'<span class="tag">{tag}</span> ' if tag else "")
            + f"{escape(item.caption)}</figcaption></figure>"
        )
    if not groups:
        return ""
    parts = [
        (f"<h3>{escape(group)}</h3>" if group and len(groups) > 1 else "")
        + f'<div class="gallery">{"".join(figures)}</div>'
        for group, figures in groups.items()
    ]
    return f"<section><h2>Rollouts</h2>{GALLERY_NOTE}{''.join(parts)}</section>"


GALLERY_NOTE = (
    "<p class='small'>The first failures and successes of each task. Green: the guidance and its "
    "waypoints. Red: where the hand has been. Points: the cloud, coloured by height. Where a model "
    "thought: what it sees, what it was told, and its words.</p>"
)


def _reproduction(
    results: Sequence[Mapping], commands: Sequence[str], config: Mapping | None
) -> str:
    rows = [
        f'<tr><th scope="row">{escape(result["label"])}</th>'
        + "".join(f"<td>{escape(_setting(result.get(name)))}</td>" for name in SETTINGS)
        + "</tr>"
        for result in results
    ]
    head = "".join(f'<th scope="col">{name}</th>' for name in ("condition", *SETTINGS))
    versions = [f"{name} {importlib.metadata.version(name)}" for name in PACKAGES]
    parts = [
        '<section><h2>How to repeat this</h2><div class="scroll"><table><thead><tr>'
        f"{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>",
        *(f"<pre>{escape(command)}</pre>" for command in commands),
        f"<p class='small'>{escape(', '.join([f'bridgeact_jax {__version__}', *versions]))}</p>",
    ]
    if config is not None:
        text = escape(json.dumps(config, indent=2, default=str))
        parts.append(f"<details><summary>Configuration</summary><pre>{text}</pre></details>")
    return "".join(parts) + "</section>"


def _setting(value: object) -> str:
    return "–" if value is None else str(value)
