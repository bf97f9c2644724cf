"""Fine-tuning data for a planner: demonstrations as conversations about their first picture.

Each demonstration becomes one picture and the two turns that a remote planner is asked: the anchors
in the picture, then, given these in 3D, the waypoints and the target pose in the camera's frame.
The waypoints are the demonstration's keyframes, the anchors where it grasps, places and touches.
Every answer has been read back by the parser of the remote planner.

The demonstrations are scripted ones of --tasks (a graphics library is needed), or those of an RLDS
dataset whose card knows a calibrated camera. DIR appears whole or not at all: pictures/, train and
validation, README.md (the dataset's card), examples.png (three of them drawn) and
planner_data.json (figures).
"""

import io
import itertools
import json
import os
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from absl import flags
from PIL import Image

from bridgeact_jax.datasets.bind import bind_card
from bridgeact_jax.datasets.card_format import Card
from bridgeact_jax.datasets.cards import card_paths, find_card, load_card
from bridgeact_jax.datasets.directories import check_new_directory, new_directory
from bridgeact_jax.datasets.episode import Episode, RejectedEpisode
from bridgeact_jax.datasets.interpret import interpret_episode
from bridgeact_jax.datasets.keyframing import keyframes_of, thinned
from bridgeact_jax.datasets.rlds_reader import open_rlds
from bridgeact_jax.datasets.tf_example import MalformedExample
from bridgeact_jax.datasets.views import find_camera, first_view, view_keys
from bridgeact_jax.errors import UsageError, UserError, nearest
from bridgeact_jax.geometry import rotations
from bridgeact_jax.geometry.cameras import Camera
from bridgeact_jax.geometry.guidance import Waypoints
from bridgeact_jax.geometry.poses import Pose
from bridgeact_jax.planning.anchors import anchors_of
from bridgeact_jax.planning.answers import MAX_ANCHORS, AnswerError, parse_anchors, parse_plan
from bridgeact_jax.planning.conversations import FORMATS, conversation, record_text
from bridgeact_jax.planning.data_card import Figures, card_text
from bridgeact_jax.planning.data_files import PICTURES, Example, LeftOut, write_examples
from bridgeact_jax.planning.protocol import (
    MAX_WAYPOINTS,
    PlanRequest,
    View,
    plan_of_waypoints,
    waypoints_of,
)
from bridgeact_jax.planning.sketch import draw_plan
from bridgeact_jax.planning.sweep import guidance_of
from bridgeact_jax.sim import demos
from bridgeact_jax.workers import map_in_processes

SIMULATED = "demonstrations"  # card of the scripted demonstrations
EPISODES = 50  # of each task
SIZE = 480  # pixels a side of rendered pictures, as evaluation shows them to planners
TOLERANCE = 0.01  # metres by which keyframes may miss the demonstrated path
MOST_KEYFRAMES = 64  # of a demonstration, before they are thinned to what a plan can hold
MARKER = "planner_data.json"
DRAWN = 3  # examples


class Demonstration(NamedTuple):
    """An episode and what a camera saw at its start; `group` is its task or dataset."""

    name: str
    group: str
    episode: Episode
    view: View


class Unusable(Exception):
    """A demonstration makes no example; the message is the reason, the same for the same fault."""


def define_flags() -> None:
    """Flags of `bridgeact planner-data`."""
    flags.DEFINE_string("tasks", None, "names with commas, or all (as of `bridgeact demos`)")
    flags.DEFINE_string("rlds", None, "an RLDS directory, instead of --tasks")
    flags.DEFINE_string("card", None, "its card: a name or .toml file; else the one that lists it")
    flags.DEFINE_string("camera", None, "which of the card's calibrated cameras; else the first")
    flags.DEFINE_string("split", "train", "which split of the RLDS dataset")
    flags.DEFINE_integer(
        "episodes", None, f"how many of each task (default {EPISODES}); of an RLDS dataset, the "
        "first so many (default all)", lower_bound=1,
    )
    flags.DEFINE_enum("format", "openai", list(FORMATS), "of the conversations")
    flags.DEFINE_integer("size", SIZE, "pixels a side of rendered pictures", 64, 2048)
    flags.DEFINE_float("validation_share", 0.1, "share of episodes for validation", 0.0, 1.0)
    flags.DEFINE_integer("seed", 0, "of the demonstrations and of the split", lower_bound=0)
    flags.DEFINE_integer("workers", 2, "processes that simulate", lower_bound=1)
    flags.DEFINE_string("out", None, "directory to make")
    flags.DEFINE_bool("overwrite", False, "replace existing data")
    flags.mark_flags_as_required(["out"])


def main(argv: list[str]) -> None:
    """Entry point of `bridgeact planner-data`."""
    del argv
    args = flags.FLAGS
    if (args.tasks is None) == (args.rlds is None):
        raise UsageError("planner-data: either --tasks or --rlds is needed")
    figures = write_planner_data(
        args.out, tasks=args.tasks, rlds=args.rlds, card=args.card, camera=args.camera,
        split=args.split, episodes=args.episodes, form=args.format, size=args.size,
        validation_share=args.validation_share, seed=args.seed, workers=args.workers,
        overwrite=args.overwrite,
    )
    print(
        f"{figures.total} conversations ({figures.train} to train, {figures.validation} to "
        f"validate) in {args.out}; {sum(figures.left_out.values())} demonstrations left out"
    )


def write_planner_data(
    out: str | os.PathLike, *, tasks: str | None = None, rlds: str | None = None,
    card: str | None = None, camera: str | None = None, split: str = "train",
    episodes: int | None = None, form: str = "openai", size: int = SIZE,
    validation_share: float = 0.1, seed: int = 0, workers: int = 2, overwrite: bool = False,
) -> Figures:
    """Write the data of `tasks` or of `rlds` to `out`, and return its figures.

    The same arguments give the same bytes, whatever `workers`.

    Raises UsageError for a word that is none, UserError if `out` exists and may not be replaced,
    the dataset has no calibrated camera or nothing is left to write.
    """
    if form not in FORMATS:
        raise UsageError(f"unknown format '{form}': {nearest(form, FORMATS)}")
    check_new_directory(out, marker=MARKER, overwrite=overwrite)
    if tasks is not None:
        names = demos.task_names(tasks)
        source = load_card(SIMULATED)
        command = f"--tasks={tasks} --episodes={episodes or EPISODES} --size={size}"
        total, examples = _of_tasks(names, episodes or EPISODES, form, size, seed, workers)
    else:
        source, total, examples = _of_rlds(rlds, card, camera, split, episodes, form)
        named = source.name if card is None or card in card_paths() else "CARD"
        command = f"--rlds=RLDS --card={named} --split={split}"
        command += f" --camera={camera}" if camera else ""
        command += f" --episodes={episodes}" if episodes else ""
    command += f" --format={form} --seed={seed} --validation_share={validation_share:g}"
    with new_directory(out, marker=MARKER, overwrite=overwrite) as folder:
        figures = write_examples(folder, form, examples, total, seed, validation_share)
        if not figures.total:
            why = ", ".join(f"{reason}: {n}" for reason, n in figures.left_out.items())
            raise UserError(f"planner-data: no demonstration made a conversation ({why})")
        (folder / "README.md").write_text(card_text(figures, source, form, command), "utf-8")
        record = figures._asdict() | {"format": form, "card": source.name, "command": command}
        (folder / MARKER).write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    return figures


def example_of(demonstration: Demonstration, form: str, *, draw: bool = False) -> Example:
    """The demonstration as a record of the format `form`. Raises Unusable if it makes none.

    Args:
      draw: also draw what its answers say.
    """
    name, group, episode, view = demonstration
    if not episode.instruction:
        raise Unusable("no instruction")
    waypoints, miss = hindsight(episode)
    anchors, hidden = anchors_of(waypoints, view)
    if not anchors:
        raise Unusable("no anchor is seen")
    if len(anchors) > MAX_ANCHORS:
        hidden = {**hidden, f"more than {MAX_ANCHORS}": len(anchors) - MAX_ANCHORS}
        anchors = anchors[:MAX_ANCHORS]
    request = PlanRequest(
        (view,), episode.instruction, waypoints.position[0], waypoints.rotation[0],
        float(waypoints.gripper[0]),
    )
    plan = plan_of_waypoints(waypoints, view.camera, anchors=anchors)
    png = io.BytesIO()
    Image.fromarray(view.picture).save(png, "PNG", optimize=True)
    about = conversation(
        name, f"{PICTURES}/{name}.png", png.getvalue(), request, anchors, plan
    )
    (_, first), (_, second) = about.turns
    try:
        read_anchors = parse_anchors(first, view.width, view.height)
        read_plan = parse_plan(second, view)
    except AnswerError:
        raise Unusable("the parser refuses its answers") from None
    drawing = None
    if draw:
        read = waypoints_of(read_plan, request)
        drawing = draw_plan(view, read, guidance_of(read), read_anchors, episode.instruction)
    return Example(
        name, group, record_text(form, about), about.png, int(waypoints.count) - 1, miss,
        dict(hidden), drawing,
    )


def hindsight(episode: Episode) -> tuple[Waypoints, float | None]:
    """The episode's keyframes as waypoints, base frame; and `Example.miss`.

    Raises Unusable if a plan cannot hold them.
    """
    most, miss = MAX_WAYPOINTS + 2, None
    (rows,) = keyframes_of([episode], (most, MOST_KEYFRAMES), TOLERANCE)
    if rows is not None and len(rows) > most:
        rows, miss = thinned(episode, rows, most)
    if rows is None or len(rows) > most:
        raise Unusable(f"more than {MAX_WAYPOINTS} waypoints")
    waypoints = Waypoints(
        episode.position[rows], episode.rotation[rows], episode.gripper[rows], np.int32(len(rows))
    )
    return waypoints, miss


# ---- sources ------------------------------------------------------------------------------------


def _of_tasks(
    names: list[str], episodes: int, form: str, size: int, seed: int, workers: int
) -> tuple[int, Iterator[Example | LeftOut]]:
    drawn = {names[i * (len(names) - 1) // (DRAWN - 1)] for i in range(DRAWN)}
    jobs = [  # one task after the other: a process keeps the scenes of few
        (name, number, number == 0 and name in drawn)
        for name in names for number in range(episodes)
    ]
    make = partial(_simulated, form, size, seed)
    return len(jobs), map_in_processes(make, jobs, workers, one_thread=True)


def _simulated(form: str, size: int, seed: int, job: tuple[str, int, bool]) -> Example | LeftOut:
    """The example of a task's demonstration `number`, perhaps with its drawing."""
    task, number, draw = job
    recorded, _ = demos.first_success(task, seed, number, clouds=False)
    env = demos.environment(task)
    env.reset(seed, recorded["episode_metadata"]["episode"], stream=demos.STREAM)
    picture, depth, camera = env.view(size)
    card = load_card(SIMULATED)
    keys = {table: column.key for table, column in card.columns().items() if table != "cloud"}
    columns = {key: _column(recorded["steps"], key) for key in keys.values()}
    try:
        episode = interpret_episode(card, keys, columns, number)
        view = View(picture=picture, camera=camera, depth=depth)
        demonstration = Demonstration(f"{task}_{number:05d}", task, episode, view)
        return example_of(demonstration, form, draw=draw)
    except (RejectedEpisode, Unusable) as error:
        return LeftOut(task, str(error))


def _column(steps: list[dict], key: str) -> np.ndarray | list[bytes]:
    """(T, ...) values of a key such as "observation/ee_position"."""
    values = []
    for step in steps:
        for part in key.split("/"):
            step = step[part]
        values.append(step)
    return [x.encode() for x in values] if isinstance(values[0], str) else np.array(values)


def _of_rlds(
    rlds: str, card: str | None, camera: str | None, split: str, episodes: int | None, form: str
) -> tuple[Card, int, Iterator[Example | LeftOut]]:
    dataset = open_rlds(rlds)
    chosen = load_card(card) if card else find_card(dataset.name)
    if chosen is None:
        raise UsageError(
            f"no card lists the dataset '{dataset.name}' ({dataset.directory}); give --card: "
            f"{nearest(dataset.name, card_paths())}"
        )
    seen_by = find_camera(chosen, camera)
    if chosen.recorded["rotation"] != "full" or not chosen.recorded["gripper"]:
        raise UserError(f"card {chosen.name}: plans need the tool's rotation and the gripper")
    keys = bind_card(chosen, dataset) | view_keys(chosen, seen_by, dataset)
    total = dataset.split(split).num_episodes
    total = min(total, episodes or total)

    def examples() -> Iterator[Example | LeftOut]:
        stream = dataset.episodes(split, set(keys.values()))
        for index, columns in enumerate(itertools.islice(stream, total)):
            try:
                if isinstance(columns, MalformedExample):
                    raise RejectedEpisode("malformed record")
                episode = interpret_episode(chosen, keys, columns, index)
                picture, depth, (fx, fy, cx, cy), pose = first_view(seen_by, keys, columns)
                turn = np.asarray(rotations.from_matrix(jnp.asarray(pose[:3, :3], jnp.float32)))
                at = Camera(Pose(pose[:3, 3].astype(np.float32), turn), fx, fy, cx, cy)
                view = View(picture=picture, camera=at, depth=depth)
                name = f"{dataset.name}_{split}_{index:06d}"
                demonstration = Demonstration(name, dataset.name, episode, view)
                yield example_of(demonstration, form, draw=index < DRAWN)
            except (RejectedEpisode, Unusable) as error:
                yield LeftOut(dataset.name, str(error))

    return chosen, total, examples()
