"""Stage 2, point-cloud fine-tuning: from stage 1's EMA parameters, with local clouds.

A policy that never sees a plan (configs/cloud_only.py) has no stage 1 and starts from scratch.
"""

from absl import flags

from bridgeact_jax.errors import UsageError
from bridgeact_jax.training import pretrain


def define_flags() -> None:
    """Flags of `bridgeact finetune`: those of `bridgeact pretrain`."""
    pretrain.define_flags()


def main(argv: list[str]) -> None:
    """Entry point of `bridgeact finetune`."""
    del argv
    args = flags.FLAGS
    if not args.config.use_cloud:
        raise UsageError("finetune: config.use_cloud is False: this config is one of pretraining")
    if args.init is None and args.config.dropout.guidance < 1:
        raise UsageError("finetune: --init=WORKDIR of a pretraining run is required")
    pretrain.run()
