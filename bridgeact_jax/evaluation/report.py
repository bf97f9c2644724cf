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
from bridgeact_jax.evaluation import plots
from bridgeact_jax.evaluation.files import write_text
from bridgeact_jax.evaluation.media import Media
from bridgeact_jax.evaluation.statistics import HORIZONS, wilson

STYLE = (Path(__file__).parent / "report.css").read_text()
PACKAGES = ("jax", "flax", "mujoco", "numpy")


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
    body += ["</header>", _summary(results), _plots(results), _tasks(results), _gallery(media)]
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
    rows = [("condition", "task", "success", "rate", "95 % interval", "wrong object", "failures")]
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
                    _percent(task["wrong_object_rate"]),
                    _failures(task),
                )
            )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    aligned = [
        "  ".join(
            cell.rjust(width) if index in (2, 3, 4, 5) else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return "\n".join([aligned[0], "-" * max(map(len, aligned)), *aligned[1:]])


def _percent(rate: float | None) -> str:
    return "–" if rate is None else f"{100 * rate:.0f} %"


def _centimetres(metres: float | None) -> str:
    return "–" if metres is None else f"{100 * metres:g} cm"


def _failures(task: Mapping) -> str:
    kinds = sorted(task["failures"].items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count} {kind.replace('_', ' ')}" for kind, count in kinds)


def _pooled(result: Mapping, horizon: str | None = None) -> tuple[int, int]:
    """Successes and episodes over the tasks of a horizon, or over all."""
    tasks = [task for task in result["tasks"].values() if horizon in (None, task["horizon"])]
    return sum(task["successes"] for task in tasks), sum(task["episodes"] for task in tasks)


def _summary(results: Sequence[Mapping]) -> str:
    present = [horizon for horizon in HORIZONS if any(_pooled(r, horizon)[1] for r in results)]
    head = "".join(f'<th scope="col" class="n">{horizon}</th>' for horizon in present)
    rows = []
    for result in results:
        cells = []
        for horizon in present:
            successes, episodes = _pooled(result, horizon)
            cells.append(f'<td class="n">{_rate_cell(successes, episodes)}</td>')
        rows.append(
            f'<tr><th scope="row">{escape(result["label"])}</th>{"".join(cells)}'
            f'<td class="n">{_centimetres(result["waypoint_noise"])}</td>'
            f'<td class="n">{_centimetres(result["depth_noise"])}</td>'
            f"<td>{escape(str(result['planner']))}</td></tr>"
        )
    return (
        '<section><h2>Success by horizon</h2><div class="scroll"><table><thead><tr>'
        f'<th scope="col">condition</th>{head}<th scope="col" class="n">waypoint noise</th>'
        '<th scope="col" class="n">depth noise</th><th scope="col">planner</th></tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
        "<p class='small'>Small figures: 95 % Wilson interval and number of episodes. An invalid "
        "episode counts as a failure.</p></section>"
    )


def _rate_cell(successes: int, episodes: int) -> str:
    if episodes == 0:
        return "–"
    low, high = wilson(successes, episodes)
    return (
        f"<b>{_percent(successes / episodes)}</b>"
        f"<small>{_percent(low)[:-2]}–{_percent(high)[:-2]}, n = {episodes}</small>"
    )


def _task_names(results: Sequence[Mapping]) -> list[str]:
    return list(dict.fromkeys(name for result in results for name in result["tasks"]))


def _series(results: Sequence[Mapping]) -> list[str]:
    """Per condition what it is apart from its waypoint noise, in as few words as tell all apart."""
    keys = [(str(result["policy"]),) for result in results]
    for field in ("ablation", "planner", "depth_noise", "checkpoint"):
        longer = [(*key, str(r.get(field))) for key, r in zip(keys, results, strict=True)]
        if len(set(longer)) > len(set(keys)):
            keys = longer
    return [", ".join(part for part in key if part not in ("None", "none")) for key in keys]


def _curves(results: Sequence[Mapping]) -> list[str]:
    """The curve each condition lies on: its series if each covers several noises, else itself."""
    series = _series(results)
    points = set(zip(series, (result["waypoint_noise"] for result in results), strict=True))
    alone = min((sum(name == s for name, _ in points) for s in series), default=0) < 2
    if alone or len(points) < len(results) or None in {noise for _, noise in points}:
        return [result["label"] for result in results]
    return series


def _colours(curves: Sequence[str]) -> dict[str, int]:
    return {curve: index for index, curve in enumerate(dict.fromkeys(curves))}


def _plots(results: Sequence[Mapping]) -> str:
    tasks = _task_names(results)
    if not tasks:
        return ""
    curves = _curves(results)
    colours = _colours(curves)
    if len(colours) < len(results):
        panels = [_noise_panel(task, results, curves, colours) for task in tasks]
        title, legend = "Success against waypoint noise", plots.legend(list(colours.items()))
    else:
        panels = [_dot_panel(task, results) for task in tasks]
        title, legend = "Success by task", ""
    return f'<section><h2>{title}</h2>{legend}<div class="panels">{"".join(panels)}</div></section>'


def _dot_panel(task: str, results: Sequence[Mapping]) -> str:
    rows = [
        (result["label"], index, _point(0.0, result["tasks"][task]))
        for index, result in enumerate(results)
        if task in result["tasks"]
    ]
    return plots.dot_panel(task, rows)


def _noise_panel(
    task: str, results: Sequence[Mapping], curves: Sequence[str], colours: Mapping[str, int]
) -> str:
    lines: dict[str, list[plots.Point]] = {}
    for curve, result in zip(curves, results, strict=True):
        if task in result["tasks"]:
            point = _point(100 * result["waypoint_noise"], result["tasks"][task])
            lines.setdefault(curve, []).append(point)
    series = [(curve, colours[curve], points) for curve, points in lines.items()]
    return plots.line_panel(task, "waypoint noise (standard deviation, cm)", series)


def _point(x: float, task: Mapping) -> plots.Point:
    return plots.Point(x, task["success_rate"] or 0.0, *task["ci95"])


def _tasks(results: Sequence[Mapping]) -> str:
    curves = _curves(results)
    colours = [_colours(curves)[curve] for curve in curves]
    bodies = []
    for name in _task_names(results):
        found = [(i, r, r["tasks"][name]) for i, r in enumerate(results) if name in r["tasks"]]
        rows = []
        for row, (index, result, task) in enumerate(found):
            first = (
                f'<th scope="rowgroup" rowspan="{len(found)}">{escape(name)}'
                f"<small>{escape(str(task['horizon'] or '–'))}</small></th>"
            )
            low, high = task["ci95"]
            rate = task["success_rate"]
            bar = plots.interval_bar(rate or 0.0, low, high, colours[index])
            rows.append(
                f"<tr>{first if row == 0 else ''}"
                f'<td class="w">{escape(result["label"])}</td>'
                f'<td class="n">{task["successes"]}/{task["episodes"]}</td>'
                f'<td class="n"><b>{_percent(rate)}</b></td><td>{bar}</td>'
                f'<td class="n">{_percent(low)[:-2]}–{_percent(high)}</td>'
                f'<td class="n">{_percent(task["wrong_object_rate"])}</td>'
                f'<td class="n">{task["invalid"]}</td>'
                f'<td class="f">{escape(_failures(task))}</td></tr>'
            )
        bodies.append(f"<tbody>{''.join(rows)}</tbody>")
    return (
        '<section><h2>Every task and condition</h2><div class="scroll"><table class="tasks">'
        '<thead><tr><th scope="col">task</th><th scope="col">condition</th>'
        '<th scope="col" class="n">episodes</th><th scope="col" colspan="2" class="c">success</th>'
        '<th scope="col" class="n">95 % interval</th><th scope="col" class="n">wrong object</th>'
        '<th scope="col" class="n">invalid</th><th scope="col">failures</th></tr></thead>'
        f"{''.join(bodies)}</table></div></section>"
    )


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
        (f"<h3>{escape(group)}</h3>" if group else "")
        + f'<div class="gallery">{"".join(figures)}</div>'
        for group, figures in groups.items()
    ]
    return f"<section><h2>Rollouts</h2>{''.join(parts)}</section>"


def _reproduction(
    results: Sequence[Mapping], commands: Sequence[str], config: Mapping | None
) -> str:
    settings = ["policy", "planner", "suite", "seed", "checkpoint"]
    settings += ["ablation"] if any("ablation" in result for result in results) else []
    rows = [
        f'<tr><th scope="row">{escape(result["label"])}</th>'
        + "".join(f"<td>{escape(_setting(result.get(name)))}</td>" for name in settings)
        + "</tr>"
        for result in results
    ]
    head = "".join(f'<th scope="col">{name}</th>' for name in ("condition", *settings))
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
