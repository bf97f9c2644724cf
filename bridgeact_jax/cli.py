"""`bridgeact <command> --flag=value ...`: finds the command's module, parses its flags, runs it.

A command module has `define_flags()`, which defines its absl flags, and `main(argv)`, which
returns an exit status or None. Only the chosen module is imported.
Exit status: 0 done, 1 the work failed, 2 the command line or config is wrong.
"""

import glob
import importlib
import inspect
import itertools
import logging
import os
import re
import sys
import textwrap
from typing import NamedTuple

from absl import flags

from bridgeact_jax import __version__
from bridgeact_jax.errors import UsageError, UserError, nearest


class Command(NamedTuple):
    module: str
    summary: str
    positional: str = ""


COMMANDS = {
    "demo": Command("bridgeact_jax.demo", "the whole story in minutes: demonstrations to report"),
    "rebuild": Command(
        "bridgeact_jax.rebuild", "the expert of nine tasks from nothing: demonstrations to export"
    ),
    "datasets": Command(
        "bridgeact_jax.datasets.catalogue", "the dataset cards as a table, or one in full", "[NAME]"
    ),
    "convert": Command("bridgeact_jax.datasets.convert", "an RLDS dataset to a trajectory store"),
    "inspect": Command("bridgeact_jax.datasets.inspect", "what a trajectory store holds"),
    "demos": Command("bridgeact_jax.sim.demos", "scripted MuJoCo demonstrations as RLDS"),
    "pretrain": Command("bridgeact_jax.training.pretrain", "stage 1: trajectories only"),
    "finetune": Command("bridgeact_jax.training.finetune", "stage 2: with local point clouds"),
    "train-vla": Command(
        "bridgeact_jax.vla.train", "ChatVLA-2: a stage of the model that reasons and acts on it"
    ),
    "vla-data": Command(
        "bridgeact_jax.vla.data", "pictures with questions, or demonstrations with thoughts"
    ),
    "knowledge": Command(
        "bridgeact_jax.vla.knowledge", "what a model of train-vla knows, by a test it never saw"
    ),
    "aot": Command(
        "bridgeact_jax.training.aot", "compile the training step for a TPU slice that is not there"
    ),
    "export": Command(
        "bridgeact_jax.training.export", "a checkpoint as one plain directory, with a model card"
    ),
    "evaluate": Command(
        "bridgeact_jax.evaluation.evaluate", "closed-loop evaluation in MuJoCo, with intervals"
    ),
    "plan": Command("bridgeact_jax.planning.plan", "one plan, printed and drawn on its picture"),
    "planner-data": Command(
        "bridgeact_jax.planning.planner_data", "fine-tuning data for a planner from demonstrations"
    ),
    "serve": Command(
        "bridgeact_jax.serving.serve", "policy server for robots, in the protocol of openpi"
    ),
    "record": Command(
        "bridgeact_jax.serving.record", "an episode of MuJoCo as a recorded RGB-D stream"
    ),
    "play": Command(
        "bridgeact_jax.serving.play", "a recorded RGB-D stream sent to a server as a robot would"
    ),
    "experiment": Command(
        "bridgeact_jax.studies.experiment", "one of the papers' studies: table, plot, text", "NAME"
    ),
    "compare": Command(
        "bridgeact_jax.evaluation.compare", "two evaluations, episode by episode", "A B"
    ),
}


def run() -> None:
    """Entry point of the `bridgeact` script."""
    sys.exit(main(sys.argv))


def main(argv: list[str]) -> int:
    """Run one command; `argv[0]` is the program's name. Returns the exit status."""
    logging.getLogger("absl").setLevel(logging.ERROR)  # what libraries tell each other
    try:
        status = _dispatch(argv[1:])
        sys.stdout.flush()
        return status
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output (head, less) has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("help", "-h", "--help"):
        print(_overview())
        return 0
    if words[0] == "--version":
        print(f"bridgeact {__version__}")
        return 0
    name, *words = words
    if name not in COMMANDS:
        raise UsageError(f"unknown command '{name}': {nearest(name, COMMANDS)}")
    command = COMMANDS[name]
    module = importlib.import_module(command.module)

    known_before = set(flags.FLAGS)
    module.define_flags()
    own = [flag for flag in sorted(set(flags.FLAGS) - known_before) if not _is_absls(flag)]
    try:
        if any(word in ("-h", "--help", "-help") for word in words):
            print(_command_help(name, command, module, own))
            return 0
        argv = _parse_flags(name, words, own)
        if len(argv) > 1 and not command.positional:
            raise UsageError(
                f"{name}: unexpected argument '{argv[1]}': flags are written --name=value"
            )
        return module.main(argv) or 0
    finally:
        overrides = [flag for flag in flags.FLAGS if flag.split(".")[0] in own]
        flags.FLAGS.remove_flag_values({*own, *overrides})
        flags.FLAGS.unparse_flags()


def _parse_flags(name: str, words: list[str], own: list[str]) -> list[str]:
    words = _find_config_files(name, words, own)
    argv = [f"bridgeact {name}", *words]
    flags.FLAGS.set_gnu_getopt(True)  # flags may follow positional arguments
    system_argv, sys.argv = sys.argv, argv  # config_flags looks for its overrides there
    try:
        return flags.FLAGS(argv)
    except flags.UnrecognizedFlagError as error:
        hint = nearest("--" + error.flagname, [f"--{flag}" for flag in own])
        raise UsageError(f"{name}: unknown flag '--{error.flagname}': {hint}") from None
    except (AttributeError, KeyError) as error:  # a config override that names no field
        _explain_config_override(name, words, own)
        raise error
    except flags.Error as error:
        raise UsageError(f"{name}: {_flag_error(str(error))}") from None
    finally:
        sys.argv = system_argv


def _flag_error(message: str) -> str:
    """absl's message about a flag's value, shortened and with the nearest valid word."""
    message = " ".join(message.split())
    parts = re.match(r"flag --([\w.]+)=(.*?): ", message)
    if parts is None or parts[1] not in flags.FLAGS:
        return message
    flag, value = parts.groups()
    if value == "None" and "must have a value" in message:
        return f"--{flag} is required"
    parser = flags.FLAGS[flag].parser
    if isinstance(parser, flags.EnumParser):
        return f"unknown --{flag} '{value}': {nearest(value, parser.enum_values)}"
    if parser.syntactic_help:
        return f"--{flag} must be {parser.syntactic_help}, not '{value}'"
    return message


def _is_absls(flag: str) -> bool:
    return flags.FLAGS.find_module_defining_flag(flag, "").startswith("absl.")


def _config_paths(words: list[str], own: list[str]) -> dict[str, str]:
    """{config flag: the file it names}, from `--config=FILE` or `--config FILE`."""
    paths = {}
    for flag in own:
        if flags.FLAGS[flag].flag_type() != "config object":
            continue
        for word, following in itertools.pairwise([*words, ""]):
            if word.lstrip("-") == flag:
                paths[flag] = following
            elif word.lstrip("-").startswith(flag + "="):
                paths[flag] = word.split("=", 1)[1]
    return paths


def _find_config_files(name: str, words: list[str], own: list[str]) -> list[str]:
    """The words, with `configs/X.py` replaced by the installed one where there is no such file."""
    for flag, path in _config_paths(words, own).items():
        path = path.split(":")[0]  # what follows a colon is an argument of get_config
        installed = os.path.join(os.path.dirname(__file__), "_" + path)
        if os.path.isfile(path):
            continue
        if path.startswith("configs/") and os.path.isfile(installed):
            words = [word.replace(path, installed, 1) for word in words]
            continue
        present = glob.glob(os.path.join(glob.escape(os.path.dirname(path)), "*.py"))
        raise UsageError(f"{name}: no config file '{path}' for --{flag}: {nearest(path, present)}")
    return words


def _explain_config_override(name: str, words: list[str], own: list[str]) -> None:
    """Raise a UsageError for the first `--config.a.b=value` whose a.b is not in the config."""
    for flag, path in _config_paths(words, own).items():
        config = flags.FLAGS[flag].parser.parse(path)
        for word in words:
            override = re.match(rf"--?{flag}\.([\w.]+)", word)
            part = config
            for key in override[1].split(".") if override else []:
                if key not in part:
                    hint = nearest(key, part.keys())
                    raise UsageError(
                        f"{name}: unknown config field '{key}' in --{flag}.{override[1]}: {hint}"
                    )
                part = part[key]


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {command.summary}" for name, command in COMMANDS.items()]
    return "\n".join(
        ["usage: bridgeact <command> [--flag=value ...]", "", *lines, ""]
        + ["`bridgeact <command> --help` lists a command's flags."]
    )


def _command_help(name: str, command: Command, module: object, own: list[str]) -> str:
    usage = f"usage: bridgeact {name} {command.positional}".rstrip() + " [--flag=value ...]"
    lines = [usage, "", inspect.getdoc(module) or command.summary, ""]
    for flag_name in own:
        flag = flags.FLAGS[flag_name]
        required = any("must have a value" in check.message for check in flag.validators)
        default = "" if flag.default is None else f" (default {flag.default})"
        default = " (required)" if required else default
        lines.append(f"  --{flag_name}{default}")
        lines += textwrap.wrap(
            flag.help or "", 90, initial_indent=" " * 6, subsequent_indent=" " * 6
        )
    return "\n".join(lines)


if __name__ == "__main__":
    run()
