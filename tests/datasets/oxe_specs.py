"""Reduces feature specifications of TensorFlow Datasets to the table beside this file.

python tests/datasets/oxe_specs.py FOLDER > tests/datasets/oxe_specs.csv
reads FOLDER/<dataset>/<version>/features.json.

One line a column. dtype "text" is a Text feature, "string" a Tensor of strings; encoding
"image:png" is a picture; "*" in a shape is a sequence of any length.
"""

import csv
import json
import pathlib
import sys

HEADER = ("dataset", "key", "dtype", "shape", "encoding")


def leaves(feature, key="", outer=()):
    """(key, dtype, shape, encoding) of each column of a feature as features.json stores it."""
    if "featuresDict" in feature:
        for name, inner in sorted(feature["featuresDict"].get("features", {}).items()):
            yield from leaves(inner, f"{key}/{name}".strip("/"), outer)
    elif "sequence" in feature:
        inner = feature["sequence"]["feature"]
        yield from leaves(inner, key, outer if key == "steps" else (*outer, "*"))
    elif "text" in feature:
        yield key, "text", "x".join(outer), "none"
    else:
        kind = "tensor" if "tensor" in feature else "image"
        body = feature[kind]
        encoding = body.get("encoding") or f"image:{body.get('encodingFormat', '')}"
        yield key, body["dtype"], "x".join((*outer, *body["shape"].get("dimensions", ()))), encoding


def main(folder: str) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(HEADER)
    for path in sorted(pathlib.Path(folder).glob("*/*/features.json")):
        for leaf in leaves(json.loads(path.read_text())):
            writer.writerow((path.parent.parent.name, *leaf))


if __name__ == "__main__":
    main(sys.argv[1])
