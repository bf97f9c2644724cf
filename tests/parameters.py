"""Parameters drawn by NumPy: to compile a model's own initialisation takes many seconds."""

import jax
import numpy as np

MATRICES = ("kernel", "inner", "outer", "router")


def drawn(shapes: dict, seed: int = 0) -> dict:
    """Parameters of these shapes, none of which is zero, of about the size they start with."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        name = path[-1].key
        spread = 0.2 if name in MATRICES else 0.05
        return np.float32((name == "scale") + spread * rng.normal(size=leaf.shape))

    return jax.tree_util.tree_map_with_path(draw, shapes)
