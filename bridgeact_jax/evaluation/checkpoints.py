"""Whether a checkpoint is what a policy needs."""

from collections.abc import Sequence

from bridgeact_jax.errors import UsageError
from bridgeact_jax.sim.front_camera import SIZE
from bridgeact_jax.sim.tasks import WORLDS
from bridgeact_jax.training.checkpoint import describe, load_expert
from bridgeact_jax.vla.checkpoint import can_act, load_vla


def check_checkpoint(
    policy: str, checkpoint: str | None, tasks: Sequence[str], *, command: str = "evaluate"
) -> None:
    """Raise UsageError if the policy could not be run from it, or not be what its name says.

    `checkpoint` is the workdir of a run or an exported directory; `command` is named in messages.
    UserError if there is no complete checkpoint, or one of other shapes than its config says.
    """
    if checkpoint is None:
        raise UsageError(f"{command}: --policy={policy} needs --checkpoint=WORKDIR")
    if policy == "chatvla2":
        check_reasoner("--policy=chatvla2", checkpoint, tasks, acts=True, command=command)
        return
    config = describe(checkpoint).config
    if "dropout" not in config:
        raise UsageError(
            f"{command}: --checkpoint={checkpoint} is no action expert: --policy={policy} needs "
            "one of `bridgeact pretrain` or `finetune`"
        )
    unguided = config.dropout.guidance == 1.0
    if policy == "expert" and not config.use_cloud:
        raise UsageError(
            f"{command}: --checkpoint={checkpoint} is a stage 1 checkpoint, which has never seen a "
            "cloud: use --policy=expert_blind or fine-tune it first"
        )
    if policy != "cloud_only" and unguided:
        raise UsageError(
            f"{command}: --checkpoint={checkpoint} has never seen a plan: use --policy=cloud_only"
        )
    if policy == "cloud_only":
        if not (unguided and config.use_cloud):
            raise UsageError(
                f"{command}: --checkpoint={checkpoint} has learned from plans: --policy=cloud_only "
                "needs one of configs/cloud_only.py"
            )
        if list(tasks) != [config.task]:
            raise UsageError(
                f"{command}: --checkpoint={checkpoint} is of the task '{config.task}' alone: "
                f"use --suite={config.task}"
            )
    load_expert(checkpoint)


def check_reasoner(
    asked: str, checkpoint: str, tasks: Sequence[str], *, acts: bool = False,
    command: str = "evaluate",
) -> None:
    """Raise UsageError if a model of `bridgeact train-vla` cannot be asked of these tasks.

    `asked` is the flag that asks it; `acts`: whether its action head is needed. UserError if there
    is no complete checkpoint, or one of something else.
    """
    foreign = [task for task in tasks if task not in WORLDS]
    if foreign:
        raise UsageError(
            f"{command}: {asked} has words for the worlds that are read alone, not for "
            f"'{foreign[0]}': --suite is to be of {', '.join(WORLDS)}"
        )
    vla = load_vla(checkpoint)
    if vla.model.picture != SIZE:
        raise UsageError(
            f"{command}: {checkpoint} looks at pictures of {_size(vla.model.picture)} pixels: the "
            f"front camera's are of {_size(SIZE)}"
        )
    if acts and not can_act(vla):
        raise UsageError(
            f"{command}: {checkpoint} has no trained action head: {asked} needs one of the stages "
            "cotrain or head; any other can be asked for plans (--planner=learned)"
        )


def _size(picture: tuple[int, int]) -> str:
    return " x ".join(map(str, picture))


def latest_step(checkpoint: str) -> int:
    """The training step of a checkpoint. Raises UserError if there is none."""
    return describe(checkpoint).step
