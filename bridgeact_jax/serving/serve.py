"""A policy server for robots: actions for observations, in the protocol of openpi's client.

What a client sends and is answered, and how to keep it safe: docs/serving.md. The server listens on
this machine only, unless --host says otherwise; then clients must know the token in --token_file,
or in the environment variable BRIDGEACT_TOKEN. http://HOST:PORT/healthz and /metrics say how it
is. SIGTERM or Ctrl-C ends it.
"""

import asyncio
import ipaddress
import logging
import math
import signal

from absl import flags

from bridgeact_jax.errors import UsageError
from bridgeact_jax.evaluation.policies import EXECUTE
from bridgeact_jax.planning.protocol import Planner
from bridgeact_jax.serving.client import TOKEN_VARIABLE, read_token
from bridgeact_jax.serving.engine import Engine
from bridgeact_jax.serving.limiter import Limits
from bridgeact_jax.serving.logbook import Logbook
from bridgeact_jax.serving.rerun_log import RerunLog
from bridgeact_jax.serving.server import Server
from bridgeact_jax.serving.settings import LIMITS, Settings
from bridgeact_jax.training.exported import shipped_expert

PLANNERS = ("none", "remote", "file")


def define_flags() -> None:
    """Flags of `bridgeact serve`."""
    flags.DEFINE_string(
        "checkpoint", None, "workdir of a training run, or an exported directory; without it the "
        "expert that ships",
    )
    flags.DEFINE_string("host", Settings.host, "address to listen on")
    flags.DEFINE_integer("port", Settings.port, "0 for any that is free", 0, 65535)
    flags.DEFINE_string("token_file", None, "file with the token that clients must know")
    flags.DEFINE_enum("planner", "none", PLANNERS, "who plans for clients that send no plan")
    flags.DEFINE_string("planner_url", None, "the remote planner's endpoint: http://HOST:PORT/v1")
    flags.DEFINE_string("planner_model", None, "the remote planner's name there")
    flags.DEFINE_string("plans", None, "the file planner's recorded plans")
    flags.DEFINE_integer(
        "execute", EXECUTE, "control steps of 0.1 s after which a new chunk is sampled", 1, 8
    )
    flags.DEFINE_list(
        "workspace", [f"{x:g}" for x in (*LIMITS.low, *LIMITS.high)],
        "corners of the box that the tool stays in: x,y,z low, x,y,z high, m, base frame",
    )
    for name, unit in (("speed", "m/s"), ("acceleration", "m/s^2"), ("rotation_rate", "rad/s")):
        flags.DEFINE_float(name, getattr(LIMITS, name), f"of the tool, at most; {unit}", 1e-3, 1e3)
    flags.DEFINE_float("deadline", Settings.deadline, "s from a message to its answer", 0.001, 60)
    flags.DEFINE_float(
        "oldest", Settings.oldest, "s from measuring to sending, by the client's clock", 0.0, 60
    )
    flags.DEFINE_integer("max_clients", Settings.max_clients, "at a time", 1)
    flags.DEFINE_float("max_message_mb", Settings.max_message / 2**20, "of one message", 0.01, 1024)
    flags.DEFINE_float(
        "write_timeout", Settings.write_timeout, "s that a client may take to read", 0.1, 60
    )
    flags.DEFINE_integer("seed", Settings.seed, "of the samples", 0)
    flags.DEFINE_string("log", None, "writes what is served for the Rerun viewer: FILE.rrd")


def main(argv: list[str]) -> None:
    """Entry point of `bridgeact serve`."""
    del argv
    args = flags.FLAGS
    settings, planner = settings_of(args), planner_of(args)
    _log_to_stderr()
    engine = Engine(shipped_expert() if args.checkpoint is None else args.checkpoint)
    logbook = None if args.log is None else Logbook(RerunLog(args.log))
    print("compiling ...", flush=True)
    engine.warm()
    try:
        asyncio.run(_run(Server(engine, settings, planner, logbook), settings.host))
    finally:
        if logbook is not None:
            logbook.close()


def settings_of(args: flags.FlagValues) -> Settings:
    """The settings that the flags describe. Raises UsageError."""
    for name in ("speed", "acceleration", "rotation_rate", "deadline", "oldest", "write_timeout"):
        if math.isnan(args[name].value):
            raise UsageError(f"serve: --{name} must be a number, not 'nan'")
    token = read_token(args.token_file)
    if token is None and not _is_loopback(args.host):
        raise UsageError(
            f"serve: --host={args.host} lets other machines in: give --token_file, or set "
            f"{TOKEN_VARIABLE}"
        )
    return Settings(
        host=args.host,
        port=args.port,
        token=token,
        limits=Limits(
            *_workspace(args.workspace), args.speed, args.acceleration, args.rotation_rate
        ),
        execute=args.execute,
        deadline=args.deadline,
        oldest=args.oldest,
        max_clients=args.max_clients,
        max_message=int(args.max_message_mb * 2**20),
        write_timeout=args.write_timeout,
        seed=args.seed,
    )


def planner_of(args: flags.FlagValues) -> Planner | None:
    """The planner that the flags name. Raises UsageError or UserError if there can be none such."""
    wanted = {"none": (), "remote": ("planner_url", "planner_model"), "file": ("plans",)}
    for name in wanted[args.planner]:
        if args[name].value is None:
            raise UsageError(f"serve: --planner={args.planner} needs --{name}")
    if args.planner == "remote":
        from bridgeact_jax.planning.remote import RemotePlanner

        return RemotePlanner(args.planner_model, args.planner_url)
    if args.planner == "file":
        from bridgeact_jax.planning.recorded import FilePlanner

        return FilePlanner(args.plans)
    return None


async def _run(server: Server, host: str) -> None:
    ended = asyncio.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(name, ended.set)
    async with server:
        print(f"serving on ws://{host}:{server.port}", flush=True)
        await ended.wait()


def _log_to_stderr() -> None:
    log, handler = logging.getLogger("bridgeact_jax.serving"), logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _workspace(words: list[str]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    try:
        numbers = tuple(map(float, words))
        low, high = numbers[:3], numbers[3:]
        if len(numbers) == 6 and all(a < b for a, b in zip(low, high, strict=True)):
            return low, high
    except ValueError:
        pass
    raise UsageError(
        f"--workspace={','.join(words)}: must be x,y,z of the low corner and x,y,z of the high one"
    )
