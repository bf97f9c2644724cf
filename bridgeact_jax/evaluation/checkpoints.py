"""Whether a checkpoint is what a policy needs."""

from collections.abc import Sequence

from bridgeact_jax.errors import UsageError
from bridgeact_jax.training.checkpoint import describe, load_expert


def check_checkpoint(
    policy: str, checkpoint: str | None, tasks: Sequence[str], *, command: str = "evaluate"
) -> None:
    """Raise UsageError if the policy could not be run from it, or not be what its name says.

    `checkpoint` is the workdir of a run or an exported directory; `command` is named in messages.
    UserError if there is no complete checkpoint, or one of other shapes than its config says.
    """
    if checkpoint is None:
        raise UsageError(f"{command}: --policy={policy} needs --checkpoint=WORKDIR")
    config = describe(checkpoint).config
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


def latest_step(checkpoint: str) -> int:
    """The training step of a checkpoint. Raises UserError if there is none."""
    return describe(checkpoint).step
