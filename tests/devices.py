"""Devices that are not there, for tests in a process of their own."""

import os


def emulated(count: int) -> dict[str, str]:
    """What the environment of a process that sees `count` devices differs by.

    With fewer threads they deadlock; in other processes more threads than cores only spin.
    """
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={count}"
    return {"XLA_FLAGS": flags.strip(), "NPROC": "32"}
