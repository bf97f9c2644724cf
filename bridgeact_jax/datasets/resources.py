"""Where the project's data files lie: inside an installed wheel, or at the top of a checkout."""

import pathlib

PACKAGE = pathlib.Path(__file__).resolve().parents[1]


def data_directory(name: str) -> pathlib.Path:
    """The folder `data/<name>`, such as data/cards."""
    installed = PACKAGE / "_data" / name
    return installed if installed.is_dir() else PACKAGE.parent / "data" / name
