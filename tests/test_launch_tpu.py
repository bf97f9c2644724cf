"""launch_tpu.sh: printed commands, and a whole launch against stand-ins for gcloud and Python."""

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLAGS = ["--name=my tpu", "--zone=z", "--type=v5litepod-16", "--version=v2",
         "--store=gs://bucket/my store/", "--workdir=gs://bucket/o'neil"]

GCLOUD = """#!/usr/bin/env bash
echo "$*" >> "$STAND_IN/calls"
case "$*" in
  *"queued-resources describe"*) if [ -f "$STAND_IN/made" ]; then echo ACTIVE; else exit 1; fi ;;
  *"queued-resources create"*) touch "$STAND_IN/made" ;;
  *"queued-resources delete"*) rm "$STAND_IN/made" ;;
  *"tpu-vm scp"*) cp "$5" "$STAND_IN/host/" ;;
  *"tpu-vm ssh"*)
    cd "$STAND_IN/host"
    for word; do case $word in --command=*) bash -c "${word#--command=}"; exit ;; esac; done ;;
esac
"""
PYTHON = """#!/usr/bin/env bash
case "$*" in
  *"pip install"*) cat > "$STAND_IN/uv.lock" ;;
  *"uv venv"*) mkdir -p .venv/bin && cp "$STAND_IN/trainer" .venv/bin/python ;;
esac
"""
TRAINER = """#!/usr/bin/env bash
printf '%s\\n' "$@" > "$STAND_IN/arguments"
echo "step 1"
exit "$(cat "$STAND_IN/status")"
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
        "queued-resources create", "queued-resources describe", "git archive", "tpu-vm scp",
        *["tpu-vm ssh"] * 4, "queued-resources delete",
    ]
    assert commands[0][5] == "my tpu" and "--spot" in commands[0]
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
        ([*FLAGS, "--config=configs/absent.py"], "no config file 'configs/absent.py'"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_2(arguments, said):
    result = launch(*arguments)
    assert result.returncode == 2
    assert said in result.stderr and len(result.stderr.splitlines()) == 1


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs a checkout: archives a commit")
@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
@pytest.mark.parametrize("status", [0, 1])
def test_a_launch_installs_trains_follows_and_deletes(tmp_path, status):
    for name, text in [("gcloud", GCLOUD), ("python3", PYTHON)]:
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    (tmp_path / "trainer").write_text(TRAINER)
    (tmp_path / "trainer").chmod(0o755)
    (tmp_path / "status").write_text(str(status))
    (tmp_path / "host").mkdir()
    path = f"{tmp_path}/bin:{os.environ['PATH']}"
    env = {**os.environ, "STAND_IN": str(tmp_path), "PATH": path}
    result = launch(*FLAGS, f"--config={ROOT}/pyproject.toml", "--", "--config.x=a b", env=env)
    assert result.returncode == status, result.stderr
    assert "step 1" in result.stdout
    assert (tmp_path / "uv.lock").read_text().startswith("uv==")
    arguments = (tmp_path / "arguments").read_text().splitlines()
    assert arguments[:3] == ["-m", "bridgeact_jax.cli", "pretrain"]
    assert "--workdir=gs://bucket/o'neil" in arguments and arguments[-1] == "--config.x=a b"
    calls = (tmp_path / "calls").read_text().splitlines()
    assert "queued-resources delete" in calls[-1] and not (tmp_path / "made").exists()
    assert any("storage cp --recursive gs://bucket/my store/* store/" in call for call in calls)
