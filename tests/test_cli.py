"""The command line: words it does not know, help, and what it imports."""

import subprocess
import sys
import types

import pytest
from absl import flags
from ml_collections import config_flags

from bridgeact_jax import cli
from bridgeact_jax.errors import UsageError, UserError, nearest


@pytest.fixture
def command(monkeypatch):
    """A command `task` that records its calls and raises `module.error` if there is one."""
    module = types.ModuleType("task_command", "Does a task.")
    module.error, module.calls = None, []

    def define_flags():
        flags.DEFINE_string("out", None, "where to write")
        flags.mark_flag_as_required("out")
        flags.DEFINE_integer("episodes", 3, "how many", lower_bound=1)
        flags.DEFINE_enum("suite", "all", ["all", "short", "long"], "which")
        config_flags.DEFINE_config_file("config", None, "configuration")

    def main(argv):
        if module.error:
            raise module.error
        module.calls.append((argv[1:], flags.FLAGS.out, flags.FLAGS.episodes, flags.FLAGS.config))

    module.define_flags, module.main = define_flags, main
    monkeypatch.setitem(sys.modules, "task_command", module)
    monkeypatch.setitem(cli.COMMANDS, "task", cli.Command("task_command", "does a task"))
    return module


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "small.py"
    path.write_text(
        "from ml_collections import ConfigDict\n"
        "def get_config(stage='a'):\n"
        "  return ConfigDict({'stage': stage, 'optimizer': {'learning_rate': 1e-3}})\n"
    )
    return path


def run(*words):
    return cli.main(["bridgeact", *words])


def only_error(capsys):
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ")
    return lines[0]


def test_unknown_command_names_the_nearest(capsys):
    assert run("pretain") == 2
    assert "'pretain': did you mean 'pretrain'?" in only_error(capsys)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--ou=x"], "unknown flag '--ou': did you mean '--out'?"),
        (["--out=x", "--suite=shrt"], "unknown --suite 'shrt': did you mean 'short'?"),
        (["--out=x", "--episodes=many"], "--episodes must be"),
        (["--out=x", "--episodes=0"], "--episodes must be"),
        ([], "--out is required"),
        (["--out"], "Missing value for flag --out"),
        (["stray", "--out=x"], "unexpected argument 'stray'"),
        (["--out=x", "--config=absent.py"], "no config file 'absent.py'"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_2(command, capsys, words, said):
    assert run("task", *words) == 2
    assert said in only_error(capsys)
    assert command.calls == []


def test_flags_and_config_overrides_reach_the_command(command, config):
    words = ["task", "--out=x", f"--config={config}:b", "--config.optimizer.learning_rate=0.5"]
    assert run(*words) == 0
    assert run("task", "--out=y", "--episodes=7") == 0  # flags do not linger between calls
    (_, out, episodes, parsed), (_, out_2, episodes_2, parsed_2) = command.calls
    assert (out, episodes, parsed.stage, parsed.optimizer.learning_rate) == ("x", 3, "b", 0.5)
    assert (out_2, episodes_2, parsed_2) == ("y", 7, None)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("optimizer.learning_rte=1", "'learning_rte' in --config.optimizer.learning_rte: did you"),
        ("zzz=1", "'zzz' in --config.zzz: choose from optimizer, stage"),
    ],
)
def test_an_unknown_config_field_names_the_nearest(command, config, capsys, override, said):
    assert run("task", "--out=x", f"--config={config}", f"--config.{override}") == 2
    assert said in only_error(capsys)


@pytest.mark.parametrize(
    ("error", "status"),
    [(UserError("no such store"), 1), (UsageError("wrong"), 2), (KeyboardInterrupt(), 130)],
)
def test_errors_of_the_user_show_no_traceback(command, capsys, error, status):
    command.error = error
    assert run("task", "--out=x") == status
    assert str(error) in only_error(capsys)


def test_other_errors_keep_their_traceback(command):
    command.error = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        run("task", "--out=x")


def test_overview_lists_every_command(capsys):
    assert run("--help") == 0 and run() == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in cli.COMMANDS)


@pytest.mark.parametrize("name", sorted(cli.COMMANDS))
def test_help_of_every_command(capsys, name):
    assert run(name, "--help") == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"usage: bridgeact {name}")
    assert "--logtostderr" not in shown  # absl's own flags are not the command's


def test_help_marks_required_flags_and_defaults(command, capsys):
    assert run("task", "--help") == 0
    shown = capsys.readouterr().out
    assert "--out (required)" in shown and "--episodes (default 3)" in shown


@pytest.mark.parametrize(
    "words", [["--help"], ["datasets"], ["convert", "--help"], ["play", "--help"]]
)
def test_light_commands_import_neither_jax_nor_tensorflow(words):
    script = (
        "import sys; from bridgeact_jax import cli\n"
        f"status = cli.main(['bridgeact', *{words!r}])\n"
        "heavy = {'jax', 'tensorflow', 'mujoco'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else status)"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_a_closed_pipe_is_no_traceback():
    result = subprocess.run(
        f"{sys.executable} -m bridgeact_jax.cli datasets | head -n 1",
        shell=True, capture_output=True, text=True,
    )
    assert "Traceback" not in result.stderr and "Exception" not in result.stderr


@pytest.mark.parametrize(
    ("word", "choices", "phrase"),
    [
        ("Lift", ["lift", "reach"], "did you mean 'lift'?"),
        ("xyz", ["lift", "reach"], "choose from lift, reach"),
        ("x", [], "there are none"),
    ],
)
def test_nearest(word, choices, phrase):
    assert nearest(word, choices) == phrase


def test_nearest_of_a_long_list_stays_short():
    assert nearest("zzz", [f"dataset_{i}" for i in range(60)]).startswith("did you mean 'dataset_")
