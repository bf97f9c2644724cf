"""`bridgeact convert`: an RLDS dataset, read through its card, to a trajectory store."""

import collections
import hashlib
import os
import signal
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from absl import flags

from bridgeact_jax import __version__
from bridgeact_jax.datasets import files
from bridgeact_jax.datasets.cards import Card, card_paths, find_card, load_card
from bridgeact_jax.datasets.directories import check_new_directory
from bridgeact_jax.datasets.interpret import bind_card
from bridgeact_jax.datasets.parts import (
    Job,
    Part,
    finished_part,
    make_part,
    part_folder,
    plan_parts,
)
from bridgeact_jax.datasets.rlds_reader import RldsDataset, open_rlds
from bridgeact_jax.datasets.store import MANIFEST, SCHEMA_VERSION, StoreBuilder
from bridgeact_jax.datasets.workspace import open_workspace
from bridgeact_jax.errors import UsageError, UserError, nearest
from bridgeact_jax.progress import Progress
from bridgeact_jax.workers import map_in_processes

KEYFRAME_TOLERANCE = 0.01
