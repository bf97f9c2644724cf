"""The report's figures: success by task or along an axis, failures by kind and by cause."""

from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape

from bridgeact_jax.evaluation import plots
from bridgeact_jax.evaluation.attribution import CAUSES
from bridgeact_jax.evaluation.conditions import AXES, SWEEPS
from bridgeact_jax.evaluation.statistics import wilson
from bridgeact_jax.sim.book import FAILURES

KINDS = (*FAILURES, "unknown")
EVERY = "all tasks"


def words(name: str) -> str:
    """A name as a person would write it."""
    return name.replace("_", " ")


def value_of(result: Mapping, axis: str) -> object:
    """The axis' value in a result, which leaves out what is off."""
    return result.get(axis, AXES[axis].default if axis in AXES else SWEEPS[axis][0])


def axis_label(axis: str) -> str:
    """The axis' name with its unit, which ends its help text."""
    unit = AXES[axis].metadata["help"].rsplit(", ", 1)[-1] if axis in AXES else ""
    return f"{words(axis)} ({unit})" if unit in ("m", "rad", "m/s") else words(axis)


def task_names(results: Sequence[Mapping]) -> list[str]:
    """Every task of the results, in order."""
    return list(dict.fromkeys(name for result in results for name in result["tasks"]))


def pooled(tasks: Sequence[Mapping]) -> dict:
    """Episodes, successes, rate, interval, failures and causes over several tasks."""
    episodes = sum(task["episodes"] for task in tasks)
    successes = sum(task["successes"] for task in tasks)
    failures, causes = Counter(), Counter()
    for task in tasks:
        failures.update(task["failures"])
        causes.update(task.get("causes", {}))
    return {
        "episodes": episodes,
        "successes": successes,
        "success_rate": successes / episodes if episodes else None,
        "ci95": list(wilson(successes, episodes)),
        "failures": dict(failures),
        "causes": dict(causes),
    }


def swept_axis(results: Sequence[Mapping]) -> str | None:
    """The one axis along which the results differ, None if there is none or more than one."""
    varying = [
        axis for axis in SWEEPS if len({value_of(result, axis) for result in results}) > 1
    ]
    return varying[0] if len(varying) == 1 else None


def series_of(results: Sequence[Mapping]) -> list[str]:
    """Per condition what it is apart from its axes, in as few words as tell all apart."""
    keys = [(str(result["policy"]),) for result in results]
    for field in ("ablation", "planner", "arm", "checkpoint"):
        longer = [(*key, str(r.get(field))) for key, r in zip(keys, results, strict=True)]
        if len(set(longer)) > len(set(keys)):
            keys = longer
    return [", ".join(part for part in key if part not in ("None", "none")) for key in keys]


def curves_of(results: Sequence[Mapping]) -> list[str]:
    """The curve each condition lies on: its series if each covers several values, else itself."""
    labels = [result["label"] for result in results]
    axis = swept_axis(results)
    if axis is None or isinstance(SWEEPS[axis][0], str):
        return labels
    series = series_of(results)
    points = set(zip(series, (value_of(result, axis) for result in results), strict=True))
    alone = min(sum(name == s for name, _ in points) for s in series) < 2
    return labels if alone or len(points) < len(results) else series


def colours_of(curves: Sequence[str]) -> dict[str, int]:
    """A colour's number for each curve."""
    return {curve: index for index, curve in enumerate(dict.fromkeys(curves))}


def success_section(results: Sequence[Mapping]) -> str:
    """Curves where an axis was swept, else intervals by task."""
    tasks = task_names(results)
    if not tasks:
        return ""
    curves = curves_of(results)
    colours = colours_of(curves)
    if len(colours) < len(results):
        axis = swept_axis(results)
        title, legend = f"Success against {words(axis)}", plots.legend(list(colours.items()))
        legend += f"<p class='small'>{escape(words(axis).capitalize())}: "
        legend += f"{escape(AXES[axis].metadata['help'])}. Whiskers: 95 % Wilson interval.</p>"
        panels = [
            _curve_panel(name, results, curves, colours, axis)
            for name in ([EVERY] if len(tasks) > 1 else []) + tasks
        ]
    else:
        title, legend = "Success by task", ""
        if len(results) == 1:
            rows = [(name, 0, _point(0.0, task)) for name, task in results[0]["tasks"].items()]
            panels = [plots.dot_panel("", rows)]
        else:
            panels = [_dot_panel(task, results) for task in tasks]
    return f'<section><h2>{title}</h2>{legend}<div class="panels">{"".join(panels)}</div></section>'


def _task_of(result: Mapping, name: str) -> Mapping | None:
    return pooled(list(result["tasks"].values())) if name == EVERY else result["tasks"].get(name)


def _dot_panel(task: str, results: Sequence[Mapping]) -> str:
    rows = [
        (result["label"], index, _point(0.0, result["tasks"][task]))
        for index, result in enumerate(results)
        if task in result["tasks"]
    ]
    return plots.dot_panel(task, rows)


def _curve_panel(
    name: str,
    results: Sequence[Mapping],
    curves: Sequence[str],
    colours: Mapping[str, int],
    axis: str,
) -> str:
    ticks = None
    if axis == "points":  # 0 stands for all of them
        values = sorted({value_of(r, axis) for r in results}, key=lambda n: n or float("inf"))
        ticks = {float(i): str(value or "all") for i, value in enumerate(values)}
    lines: dict[str, list[plots.Point]] = {}
    for curve, result in zip(curves, results, strict=True):
        task, value = _task_of(result, name), value_of(result, axis)
        if task is not None:
            place = float(values.index(value) if ticks else value)
            lines.setdefault(curve, []).append(_point(place, task))
    series = [(curve, colours[curve], points) for curve, points in lines.items()]
    return plots.line_panel(name, axis_label(axis), series, ticks)


def _point(x: float, task: Mapping) -> plots.Point:
    return plots.Point(x, task["success_rate"] or 0.0, *task["ci95"])


def failure_section(results: Sequence[Mapping]) -> str:
    """Failures by kind and, where they have been attributed, by cause, as stacked bars.

    With one condition a bar is a task, with several a condition over all its tasks.
    """
    if len(results) == 1:
        bars = list(results[0]["tasks"].items())
    else:
        bars = [(r["label"], pooled(list(r["tasks"].values()))) for r in results]
    parts = []
    for field, order, title in (
        ("failures", KINDS, "Failures by kind"),
        ("causes", CAUSES, "Failures by cause"),
    ):
        counted = [(name, task.get(field, {}), task["episodes"]) for name, task in bars]
        present = set().union(*(counts for _, counts, _ in counted)) if counted else set()
        kinds = [kind for kind in (*order, *sorted(present - set(order))) if kind in present]
        if not kinds:
            continue
        rows = [
            (
                name,
                [(words(k), order.index(k) if k in order else 9, counts[k])
                 for k in kinds if k in counts],
                total,
            )
            for name, counts, total in counted
            if counts
        ]  # fmt: skip
        legend = [(words(k), order.index(k) if k in order else 9) for k in kinds]
        parts.append(
            f"<section><h2>{title}</h2>{plots.legend(legend)}{plots.stacked_panel(rows)}"
            + (CAUSE_NOTE if field == "causes" else "")
            + "</section>"
        )
    return "".join(parts)


CAUSE_NOTE = (
    "<p class='small'>Every failure was run again with exact waypoints (success: the planner is to "
    "blame), then with faultless clouds as well (success: depth); what still fails is the "
    "policy's, or the spline's controller's. Where plan or clouds had no fault, that run is left "
    "out. Episodes whose physics diverged are not attributed.</p>"
)
