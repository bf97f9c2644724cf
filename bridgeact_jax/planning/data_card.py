"""The card of a planner's fine-tuning data: what it holds, by which conventions, how to use it."""

from typing import NamedTuple, Protocol

from bridgeact_jax.planning.answers import DECIMALS
from bridgeact_jax.planning.protocol import MAX_WAYPOINTS
from bridgeact_jax.planning.schemas import SCHEMA_VERSION

TRAIN = {
    "openai": "Upload `train.jsonl` and `validation.jsonl` to an endpoint that fine-tunes on "
    "OpenAI's chat format. The pictures are inside, as data URLs; `pictures/` holds the same.",
    "llava": "LLaVA's `train.py`: `--data_path train.json --image_folder .`, from this folder.",
    "qwen": "ms-swift, from this folder: `swift sft --model Qwen/Qwen2.5-VL-3B-Instruct "
    "--dataset train.jsonl --val_dataset validation.jsonl --train_type lora`. LLaMA-Factory: "
    '`"formatting": "sharegpt"`, columns `messages` and `images`, tags role, content, user, '
    "assistant, system, and this folder as `image_dir` (`media_dir`).",
}


class Figures(NamedTuple):
    """What was written. Counts of episodes, but for `hidden`, of anchors.

    groups: by task or dataset. left_out, hidden: by reason. waypoints: by the length of the plan,
    the target included. thinned: plans with fewer waypoints than the path's keyframes, and
    worst_miss: metres by which they miss it at most.
    """

    train: int
    validation: int
    groups: dict[str, int]
    left_out: dict[str, int]
    hidden: dict[str, int]
    waypoints: dict[str, int]
    thinned: int
    worst_miss: float
    num_bytes: int

    @property
    def total(self) -> int:
        return self.train + self.validation


class Source(Protocol):
    """The part of a dataset's card that is told."""

    title: str
    robot: str
    licence: str
    homepage: str
    citation: str


def card_text(figures: Figures, source: Source, form: str, command: str) -> str:
    """The text of README.md. `command` are the flags that made the data."""
    mean = sum(int(n) * count for n, count in figures.waypoints.items()) / figures.total
    rows = [f"| {group} | {count} |" for group, count in figures.groups.items()]
    lines = [
        "# Planner's fine-tuning data",
        "",
        f"{figures.total} demonstrations of {source.title}, {source.robot}: the first picture of "
        "each, and the conversation in which a planner names the anchors in the picture and then, "
        "given these in 3D, the waypoints and the target pose of the robot's tool.",
        "",
        f"Made by `bridgeact planner-data {command} --out=DIR`; the same command gives the same "
        "bytes.",
        "",
        "![Three examples: anchors, curve and waypoints on the pictures](examples.png)",
        "",
        "| | conversations |",
        "|---|---|",
        f"| train | {figures.train} |",
        f"| validation | {figures.validation} |",
        *rows,
        "",
        f"- Size: {figures.num_bytes / 1e6:.1f} MB, pictures included. Format: {form}.",
        f"- A plan has {mean:.1f} waypoints on average, the target included, and "
        f"{max(map(int, figures.waypoints))} at most ({MAX_WAYPOINTS + 1} are allowed).",
        "- The curve through the waypoints misses the demonstrated path by 1 cm at most"
        + (
            f", but for {figures.thinned} plans that needed too many: they miss it by "
            f"{100 * figures.worst_miss:.1f} cm at most, never at a gripper event."
            if figures.thinned else "."
        ),
        f"- Demonstrations left out: {_listed(figures.left_out)}.",
        f"- Anchors left out: {_listed(figures.hidden)}.",
        "- Train and validation are parted by episode, by a hash of its name and the seed.",
        "",
        "## Conventions",
        "",
        "- Pixels: whole numbers of the picture in `pictures/`, u to the right, v down; (0, 0) is "
        "the centre of the top left pixel.",
        f"- Positions: metres, {DECIMALS} decimals, in the camera's frame: x to the right, y down, "
        "z forward.",
        f"- Rotations: unit quaternions w x y z, {DECIMALS} decimals, of the tool in the camera's "
        "frame.",
        "- gripper: 1 = open, 0 = closed, as commanded once the tool is there.",
        "- Waypoints are keyframes of the measured motion: gripper events, pauses, and what the "
        "curve through them needs. The last is the target; the tool's first pose is in the "
        "question.",
        '- Anchors: "grasp", "place" and "touch", on the surface that the picture shows above or '
        "below the tool there. Their 3D positions in the second question are those that lifting "
        "by depth gives.",
        f"- The schema of the answers has version {SCHEMA_VERSION}; every answer has been read "
        "back by the parser that reads a planner's.",
        "",
        "## How to train",
        "",
        TRAIN[form],
        "",
        "All answers of a conversation are to be learnt. Pictures must reach the model at the size "
        "that the question states, or its pixels are wrong.",
        "",
        "## Source",
        "",
        f"Licence of the source: {source.licence}. {source.homepage}".rstrip(),
    ]
    if source.citation.strip():
        lines += ["", "```", source.citation.strip(), "```"]
    return "\n".join(lines) + "\n"


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{name}: {count}" for name, count in counts.items()) or "none"
