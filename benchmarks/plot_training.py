"""A run's curves as one picture: losses, position errors, gradient norm.

    python benchmarks/plot_training.py --workdir=WORKDIR --out=docs/scale.png
"""

import argparse
import json
import pathlib

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

PANELS = {
    "squared error of the normalised chunk": ("loss", "validation_loss"),
    "position error, mm": ("position_error_mm", "validation_position_mm"),
    "gradient norm": ("gradient_norm",),
}
WORDS = {
    "loss": "training, all",
    "validation_loss": "held-out episodes, EMA",
    "position_error_mm": "training, one denoising step",
    "validation_position_mm": "held-out episodes, sampled chunks",
    "gradient_norm": "before clipping",
}


def main() -> None:
    """Draw `WORKDIR/metrics.jsonl`."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--workdir", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    args = parser.parse_args()
    lines = (args.workdir / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    datasets = sorted({name for row in rows for name in row if name.startswith("loss/")})
    figure, axes = plt.subplots(1, len(PANELS), figsize=(13, 3.8), layout="constrained")
    for axis, (title, names) in zip(axes, PANELS.items(), strict=True):
        for name in [*names, *(datasets if "loss" in names else [])]:
            points = [(row["step"], row[name]) for row in rows if name in row]
            label = WORDS.get(name, f"training, {name.removeprefix('loss/')}")
            marker = "o" if name.startswith("validation") else None
            axis.plot(*zip(*points, strict=True), marker=marker, ms=4, lw=1.3, label=label)
        axis.set(title=title, xlabel="step", yscale="log")
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_formatter("{x:g}" if "mm" in title else "")
        axis.grid(alpha=0.3)
        axis.legend(frameon=False, fontsize=8)
    figure.savefig(args.out, dpi=110)


if __name__ == "__main__":
    main()
