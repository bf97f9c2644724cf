"""What a study found, as Markdown, from its rows alone; and all studies as one document."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from bridgeact_jax.evaluation.evaluate import suite_tasks
from bridgeact_jax.files import write_text
from bridgeact_jax.studies.curves import COUNTS, curves
from bridgeact_jax.studies.drawing import draw, name_of
from bridgeact_jax.studies.engine import AT_STEP, TRAINED
from bridgeact_jax.studies.records import VERDICTS, Row, read_rows, values, where
from bridgeact_jax.studies.registry import STUDIES
from bridgeact_jax.studies.study import Claim, Panel, Study

DOCUMENT, FOLDER = "results.md", "results"
SHIPPED = "_expert"  # the folder of the expert that comes along
BUILD = "bridgeact experiment results --out=runs/studies --docs=docs"
QUICK_NOTE = "**A quick run: it shows that everything runs; the figures mean nothing.**"
HEAD = f"""# Results: the papers' studies, run again

Written by `{BUILD}` from the tables in `docs/{FOLDER}/`; a test holds it to them. """ + (
    "The method's paper is arXiv 2510.03896 (GAE, first published as BridgeAct), that of the model "
    "that reasons arXiv 2505.21906 (ChatVLA-2). Their tasks, robots and data are not ours: what "
    "can be compared is which way a trend points, not how high a figure is.\n\n"
    "Intervals are 95 % Wilson intervals of the episodes pooled over tasks and seeds; they do not "
    "know that trainings differ, so the range over the seeds stands beside them where experts were "
    "trained. A verdict is that of Newcombe's interval of the difference of two shares: *not "
    "resolved* means that it holds zero.\n"
)


def write_documents(docs: Path, out: Path) -> list[str]:
    """Take finished studies from `out` into `docs/results`, draw them and write `docs/results.md`.

    What `docs/results` held of other studies stays. Returns the names of all it holds now.
    """
    folder = docs / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    for name in STUDIES:
        finished = out / name / f"{name}.csv"
        if finished.exists():
            read_rows(finished)
            write_text(folder / finished.name, finished.read_text())
    tables = read_tables(folder)
    for name, rows in tables.items():
        draw(STUDIES[name], rows).savefig(folder / f"{name}.png")
    write_text(docs / DOCUMENT, document(tables))
    return list(tables)


def read_tables(folder: Path) -> dict[str, list[Row]]:
    """{study: its rows} of the CSV files in a folder, in the studies' order."""
    paths = {name: folder / f"{name}.csv" for name in STUDIES}
    return {name: read_rows(path) for name, path in paths.items() if path.exists()}


def document(tables: Mapping[str, Sequence[Row]]) -> str:
    """All studies, those that were not run named as such."""
    claims = {
        name: study.claims(tables[name]) for name, study in STUDIES.items() if name in tables
    }
    parts = [HEAD, "## What the evidence says\n", _evidence(tables, claims)]
    for name, study in STUDIES.items():
        if name in tables:
            picture = f"\n![{name}]({FOLDER}/{name}.png)\n"
            parts += [f"## {name}: {study.question}\n", section(study, tables[name]), picture]
        else:
            parts += [
                f"## {name}: {study.question}\n",
                f"Not run yet: `{_command(study)}`. {study.fair}\n\nThe paper: {study.paper}\n",
            ]
    return "\n".join(parts)


def section(study: Study, rows: Sequence[Row]) -> str:
    """A study's findings and tables."""
    quick = any(row["size"] == "quick" for row in rows)
    parts = [
        *([QUICK_NOTE + "\n"] if quick else []),
        "\n".join(["```", command_of(study, rows), "```", ""]),
        f"{size_of(rows)} {study.fair}\n",
        f"The paper: {study.paper}\n",
        f"**Found:** {' '.join(study.findings(rows))}\n",
    ]
    parts += [table for panel in study.panels if (table := panel_table(panel, rows))]
    return "\n".join(parts)


def command_of(study: Study, rows: Sequence[Row]) -> str:
    """The command that makes these rows."""
    quick = rows[0]["size"] == "quick"
    usual = study.quick if quick else study.full
    words = [_command(study), *(["--quick"] if quick else [])]
    expert = _folder(where(rows, policy="expert"))
    blind = _folder(where(rows, policy="expert_blind"))
    seeds, episodes = tuple(values(rows, "seed")), values(rows, "episodes")[0]
    tasks = values(rows, "task")
    if expert not in (None, SHIPPED, TRAINED):
        words.append(f"--checkpoint={expert}")
    if blind not in (None, expert):
        words.append(f"--blind={blind}")
    if seeds != usual.seeds:
        words.append(f"--seeds={','.join(map(str, seeds))}")
    if episodes != usual.episodes:
        words.append(f"--episodes={episodes}")
    if tasks != suite_tasks(usual.suite):
        words.append(f"--suite={','.join(tasks)}")
    return " ".join(words)


def _command(study: Study) -> str:
    return f"bridgeact experiment {study.name} --out=runs/studies"


def _folder(rows: Sequence[Row]) -> str | None:
    """The name of the checkpoint's folder that rows are of."""
    names = values(rows, "expert")
    return names[0].split(AT_STEP)[0] if names else None


def size_of(rows: Sequence[Row]) -> str:
    """How much was run, as a sentence."""
    tasks, seeds = values(rows, "task"), values(rows, "seed")
    text = f"{sum(row['episodes'] for row in rows):,} episodes: {len(tasks)} tasks"
    text += f", {values(rows, 'episodes')[0]} of each under each condition"
    if TRAINED in values(rows, "expert"):
        shown, most = values(rows, "demonstrations"), max(values(rows, "cloud_samples"))
        text += f"; seeds {', '.join(map(str, seeds))} of the trainings"
        text += f"; {min(shown)}-{max(shown)}" if len(shown) > 1 else f"; {shown[0]}"
        text += f" demonstrations of {', '.join(tasks)}, at most {most:,} cloud samples a training"
    else:
        text += f"; seeds {', '.join(map(str, seeds))} of the episodes; {_experts(rows)}"
    invalid = sum(row["invalid"] for row in rows)
    return f"{text}; {invalid} episodes with diverged physics, counted as failures."


def _experts(rows: Sequence[Row]) -> str:
    names = values(rows, "expert")
    shown = [name.replace(SHIPPED + AT_STEP, "the one that ships" + AT_STEP) for name in names]
    return f"expert: {', '.join(shown)}"


def panel_table(panel: Panel, rows: Sequence[Row]) -> str:
    """A panel as a Markdown table, a column for each series; empty if nothing of it was run."""
    found = curves(panel, rows)
    if not found:
        return ""
    texts = {
        series: {point.x: point.text for point in points} for series, points in found.items()
    }
    every = dict.fromkeys(x for points in texts.values() for x in points)
    every = list(every) if any(isinstance(x, str) for x in every) else sorted(every)
    heads = [name_of(series) for series in texts]
    if panel.paper:
        heads.append("the paper, on its tasks")
    lines = [f"| {' | '.join([panel.label, *heads])} |", "|---" * (len(heads) + 1) + "|"]
    for x in every:
        cells = [name_of(x), *(points.get(x, "–") for points in texts.values())]
        if panel.paper:
            figure = panel.paper.get(x)
            cells.append("–" if figure is None else f"{100 * figure:.0f} %")
        lines.append(f"| {' | '.join(cells)} |")
    what = "" if panel.value in COUNTS else "; least and largest of the cells in brackets"
    return f"*{panel.title}{what}*\n\n" + "\n".join(lines) + "\n"


def _evidence(
    tables: Mapping[str, Sequence[Row]], claims: Mapping[str, Sequence[Claim]]
) -> str:
    """A paragraph on the paper's claims, and their table."""
    every = [(name, claim) for name, found in claims.items() for claim in found]
    missing = [name for name in STUDIES if name not in tables]
    quick = [name for name, rows in tables.items() if rows[0]["size"] == "quick"]
    sentences = []
    if every:
        by_verdict = {
            verdict: [claim.says for _, claim in every if claim.verdict == verdict]
            for verdict in VERDICTS
        }
        counted = [
            f"{len(found)} {verdict} ({'; '.join(found)})"
            for verdict, found in by_verdict.items()
            if found
        ]
        sentences.append(
            f"Of {len(every)} claims that these studies test, on simulated tasks with experts "
            f"trained on two CPU cores: {', '.join(counted)}."
        )
    if quick:
        sentences.append(f"Quick runs, whose figures mean nothing: {', '.join(quick)}.")
    if missing:
        sentences.append(f"Not run yet: {', '.join(missing)}.")
    lines = [" ".join(sentences), ""]
    if every:
        lines += ["| study | claim | paper | here | verdict |", "|---|---|---|---|---|"]
        lines += [
            f"| {name} | {claim.says} | {claim.paper} | {claim.here} | {claim.verdict} |"
            for name, claim in every
        ]
        lines.append("")
    return "\n".join(lines)
