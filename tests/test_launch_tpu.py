"""launch_tpu.sh: printed commands, and a whole launch against stand-ins for gcloud and Python."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLAGS = ["--name=my tpu", "--zone=z", "--type=v5litepod-16", "--version=v2",
         "--store=gs://bucket/my store/", "--workdir=gs://bucket/o'neil"]

# Knows the commands and flags of the Cloud command line that the script may use, and no others.
GCLOUD = """#!{python}
import argparse, os, pathlib, shutil, subprocess, sys

here = pathlib.Path(os.environ["STAND_IN"])
with open(here / "calls", "a") as calls:
    print(*sys.argv[1:], file=calls)
slice_ = here / "slice"  # its state; absent: there is none
top = argparse.ArgumentParser(allow_abbrev=False)
kinds = top.add_subparsers(dest="kind", required=True)


def command(name, *flags, many=False, yes=()):
    parser = kinds.add_parser(name, allow_abbrev=False)
    parser.add_argument("names", nargs="+" if many else 1)
    for flag in flags:
        parser.add_argument("--" + flag, required=flag != "project")
    for flag in yes:
        parser.add_argument("--" + flag, action="store_true")


command("create", "node-id", "zone", "accelerator-type", "runtime-version", "project",
        yes=["spot"])
command("describe", "zone", "format", "project")
command("delete", "zone", "project", yes=["force", "quiet"])
command("scp", "zone", "worker", "project", many=True)
command("ssh", "zone", "worker", "command", "project")
command("cp", many=True, yes=["recursive"])
*group, kind = sys.argv[1:5] if sys.argv[1] == "compute" else sys.argv[1:3]
groups = {{"create": "queued-resources", "describe": "queued-resources",
          "delete": "queued-resources", "scp": "tpu-vm", "ssh": "tpu-vm"}}
expected = ["compute", "tpus", groups[kind]] if kind in groups else ["storage"]
if group != expected:
    sys.exit("unknown command: " + " ".join(sys.argv[1:]))
args = top.parse_args(sys.argv[len(group) + 1:])
if kind == "create":
    if slice_.exists():
        sys.exit("ALREADY_EXISTS")
    slice_.write_text("ACTIVE")
elif not slice_.exists():
    sys.exit("NOT_FOUND")
elif kind == "describe":
    print(slice_.read_text())
elif kind == "delete":
    slice_.unlink()
elif slice_.read_text() != "ACTIVE":
    sys.exit("the slice is " + slice_.read_text())
elif kind == "scp":
    shutil.copy(args.names[0], here / "host")
elif kind == "ssh":
    sys.exit(subprocess.run(["bash", "-c", args.command], cwd=here / "host").returncode)
"""
PYTHON = """#!/usr/bin/env bash
case "$*" in
  *"pip install"*) cat > "$STAND_IN/uv.lock" ;;
  *"uv venv"*) mkdir -p .venv/bin && cp "$STAND_IN/trainer" .venv/bin/python ;;
esac
"""
# Each start takes one word from the plan: an exit status, or `preempt`, or `lost`, which takes the
# slice away after the state was saved, or before.
TRAINER = """#!/usr/bin/env bash
printf '%s\\n' "$@" > "$STAND_IN/arguments"
echo "step 1"
read -r word rest < "$STAND_IN/plan"
echo "$rest" > "$STAND_IN/plan"
case $word in
  preempt) echo SUSPENDED > "$STAND_IN/slice"; exit 143 ;;
  lost) echo SUSPENDING > "$STAND_IN/slice"; exit 1 ;;
  *) exit "$word" ;;
esac
"""


def launch(*arguments, env=None):
    command = ["bash", str(ROOT / "launch_tpu.sh"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=env, timeout=60)


def test_dry_run_prints_every_command_and_quotes_it(tmp_path):
    hostile = f"--config.note=$(touch {tmp_path}/pwned)"
    # A dry run needs neither gcloud nor a project.
    result = launch(*FLAGS, f"--config={ROOT}/pyproject.toml", "--spot", "--dry_run", "--", hostile)
    assert result.returncode == 0, result.stderr
    commands = [shlex.split(line.removeprefix("+ ")) for line in result.stderr.splitlines()]
    kinds = [" ".join(c[:2]) if c[0] == "git" else " ".join(c[3:5]) for c in commands]
    assert kinds == [
        "git archive", "queued-resources create", "queued-resources describe", "tpu-vm scp",
        *["tpu-vm ssh"] * 4, "queued-resources delete",
    ]
    assert commands[1][5] == "my tpu" and "--spot" in commands[1]
    remote = [w.removeprefix("--command=") for c in commands for w in c if "--command=" in w]
    assert shlex.split(remote[1])[-1] == "gs://bucket/my store"
    training = shlex.split(remote[2])
    assert "--workdir=gs://bucket/o'neil" in training and training[-1] == hostile
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "--name is required"),
        (["--nme=x"], "unknown argument '--nme=x'"),
        ([*FLAGS, "--workdir=/tmp/run"], "--workdir must be a gs:// address"),
        ([*FLAGS, "--restarts=often"], "--restarts must be a number, not 'often'"),
        ([*FLAGS, "--config=configs/absent.py"], "no config file 'configs/absent.py'"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_2(arguments, said):
    result = launch(*arguments)
    assert result.returncode == 2
    assert said in result.stderr and len(result.stderr.splitlines()) == 1


@pytest.fixture
def launched(tmp_path):
    """Launches with a plan for the trainer; returns the result and the calls."""
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("needs git and a checkout: archives a commit")
    (tmp_path / "bin").mkdir()
    (tmp_path / "host").mkdir()
    gcloud = GCLOUD.format(python=sys.executable)
    for path, text in [("bin/gcloud", gcloud), ("bin/python3", PYTHON), ("trainer", TRAINER)]:
        (tmp_path / path).write_text(text)
        (tmp_path / path).chmod(0o755)
    path = f"{tmp_path}/bin:{os.environ['PATH']}"
    env = {**os.environ, "STAND_IN": str(tmp_path), "PATH": path, "TPU_LAUNCH_POLL": "0"}

    def launch_with(plan, *arguments):
        (tmp_path / "plan").write_text(plan + "\n")
        result = launch(*FLAGS, f"--config={ROOT}/pyproject.toml", *arguments, env=env)
        return result, (tmp_path / "calls").read_text().splitlines()

    return launch_with


def slices(calls):
    """The creations and deletions among the calls."""
    kinds = [call.split()[3] for call in calls if "queued-resources" in call]
    return [kind for kind in kinds if kind != "describe"]


@pytest.mark.parametrize("status", [0, 1, 143])
def test_a_launch_installs_trains_follows_and_deletes(launched, tmp_path, status):
    result, calls = launched(str(status), "--", "--config.x=a b")
    assert result.returncode == status, result.stderr
    assert "step 1" in result.stdout
    assert ("has saved its state" in result.stderr) == (status == 143)
    assert (tmp_path / "uv.lock").read_text().startswith("uv==")
    arguments = (tmp_path / "arguments").read_text().splitlines()
    assert arguments[:3] == ["-m", "bridgeact_jax.cli", "pretrain"]
    assert "--workdir=gs://bucket/o'neil" in arguments and arguments[-1] == "--config.x=a b"
    assert "queued-resources delete" in calls[-1] and not (tmp_path / "slice").exists()
    assert any("storage cp --recursive gs://bucket/my store/* store/" in call for call in calls)
    assert slices(calls) == ["create", "delete"]


def test_a_slice_that_is_taken_away_is_replaced_and_training_goes_on(launched):
    result, calls = launched("preempt lost 0", "--spot")
    assert result.returncode == 0, result.stderr
    assert slices(calls) == ["create", "delete"] * 3
    assert result.stderr.count("the slice was taken away") == 2


def test_restarts_are_limited_and_a_failure_is_none(launched):
    result, calls = launched("preempt preempt 0", "--restarts=1")
    assert result.returncode == 143 and slices(calls) == ["create", "delete"] * 2
    result, calls = launched("preempt 7 0")
    assert result.returncode == 7 and slices(calls) == ["create", "delete"] * 4


def test_a_slice_that_was_taken_away_before_is_made_again(launched, tmp_path):
    (tmp_path / "slice").write_text("SUSPENDED")
    result, calls = launched("0")
    assert result.returncode == 0 and slices(calls) == ["delete", "create", "delete"]
