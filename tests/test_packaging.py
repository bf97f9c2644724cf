"""What a wheel carries, and that the locks belong to this project."""

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_a_wheel_carries_code_cards_mixtures_configs_style_and_the_expert(tmp_path):
    pytest.importorskip("hatchling")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT, check=True, capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    packed = set(zipfile.ZipFile(wheel).namelist())
    wanted = {
        str(path.relative_to(ROOT)).replace(folder + "/", target, 1)
        for folder, target in [
            ("bridgeact_jax", "bridgeact_jax/"),
            ("data", "bridgeact_jax/_data/"),
            ("configs", "bridgeact_jax/_configs/"),
        ]
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".py", ".toml", ".css", ".safetensors", ".json")
    }
    assert wanted <= packed
    assert {name.split("/")[0] for name in packed if ".dist-info" not in name} == {"bridgeact_jax"}


@pytest.mark.parametrize("name", ["requirements", "requirements-tpu", "requirements-beam"])
def test_locks_are_hashed_and_tell_of_no_machine(name):
    lock = (ROOT / f"{name}.lock").read_text()
    assert "://" not in lock and "--index" not in lock and "--find-links" not in lock
    entries = re.split(r"\n(?=[a-z0-9])", lock[lock.index("\nabsl-py==") + 1 :])
    pins = [entry.split("==")[0] for entry in entries]
    assert len(pins) == len(set(pins))
    assert all("--hash=sha256:" in entry for entry in entries)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    direct = {re.match(r"[A-Za-z0-9_-]+", word)[0].lower() for word in project["dependencies"]}
    assert direct <= set(pins)
