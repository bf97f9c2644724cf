"""What `bridgeact serve` makes of hostile clients, while good ones are being served.

    JAX_PLATFORMS=cpu python benchmarks/fuzz_serve.py --checkpoint=W [--messages=12000]
        [--disconnects=200] [--slow=50]

A server is started in a process of its own. Two good clients ask it for actions at 10 Hz all the
time. The others send, one message after the other: what hypothesis thinks of, mutations of real
messages, and bytes that are no WebSocket; they vanish in the middle of things, and they ask without
reading the answers. All of it is done twice, with half of the messages each time, since memory that
only the first round takes is no leak. One line of JSON for each: what became of them, the server's
memory (MB), open files and threads afterwards, and what the good clients had in the meantime. The
last line says whether a good client is answered, to the bit, what it was answered before. Exit
status 1 if not, if a good client was disturbed, if a message had no answer, if a client that does
not read was not dropped, or if the server died.
"""

import argparse
import collections
import contextlib
import json
import random
import socket
import struct
import sys
import threading
import time
import warnings

import msgpack
from fuzz_peers import DEPTH, OBSERVATION, PATIENCE, Attacker, Good, Process
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from websockets.sync.client import connect

from bridgeact_jax.serving import wire
from bridgeact_jax.serving.client import Client
from bridgeact_jax.serving.observations import KEYS

# ---- messages -----------------------------------------------------------------------------------

numbers = st.one_of(st.integers(-(2**63), 2**64 - 1), st.floats(), st.booleans(), st.none())
arrays = hnp.arrays(
    st.sampled_from(["<f2", "<f4", "<f8", ">f8", "|u1", "<u2", "<i8", "|b1"]),
    hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=6),
)
fields = st.fixed_dictionaries(
    {
        b"__ndarray__": st.booleans(),
        b"data": st.binary(max_size=64) | st.text(max_size=4) | numbers,
        b"dtype": st.sampled_from(["<f4", "|O", "V8", "<U4", "<c8", "f4,f4", "<M8[s]", ""]),
        b"shape": st.lists(st.integers(-2, 2**62), max_size=5) | numbers,
    },
    optional={b"more": numbers},
)
values = st.recursive(
    numbers | arrays | fields | st.text(max_size=20) | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=8,
)
keys = st.sampled_from(sorted(KEYS)) | st.text(max_size=12)
messages = st.one_of(
    st.binary(max_size=300),
    st.text(max_size=50),
    st.dictionaries(keys, values, max_size=6).map(lambda value: pack(value)),
    st.tuples(st.sampled_from([OBSERVATION, DEPTH]), keys, values).map(
        lambda parts: pack({**parts[0], parts[1]: parts[2]})
    ),
    values.map(lambda value: pack(value)),
)


def pack(value) -> bytes:
    """As openpi packs, without asking whether it should."""

    def packed(array):
        head = {b"__ndarray__": True, b"data": array.tobytes()}
        return {**head, b"dtype": array.dtype.str, b"shape": array.shape}

    return msgpack.packb(value, default=packed)


def imagined(attacker: Attacker, count: int) -> None:
    """Messages that hypothesis thinks of."""

    @seed(0)
    @settings(
        max_examples=count, database=None, deadline=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(messages)
    def send(frame):
        attacker.send(frame)

    send()


def mutated(attacker: Attacker, count: int) -> None:
    """Real messages with bytes turned, cut, doubled, exchanged or put in."""
    rng = random.Random(0)
    real = [pack(OBSERVATION), pack(DEPTH), pack({"request": "reset"}), pack({"request": "plan"})]
    odd = [0x00, 0x7F, 0x80, 0x90, 0xC1, 0xC4, 0xC6, 0xC7, 0xC9, 0xD9, 0xDC, 0xDD, 0xDF, 0xFF]
    for _ in range(count):
        data = bytearray(rng.choice(real))
        for _ in range(rng.choice([1, 1, 1, 2, 5, 50])):
            at = rng.randrange(len(data) or 1) if rng.random() < 0.3 else rng.randrange(64)
            at = min(at, max(len(data) - 1, 0))
            kind = rng.randrange(6)
            if kind == 0 and data:
                data[at] ^= 1 << rng.randrange(8)
            elif kind == 1 and data:
                data[at] = rng.choice(odd)
            elif kind == 2:
                del data[at:]
            elif kind == 3:
                data[at:at] = data[at : at + rng.randrange(200)]
            elif kind == 4:
                data[at : at + rng.randrange(8)] = rng.randbytes(rng.randrange(8))
            else:
                data[at:at] = bytes([rng.choice(odd)]) * rng.randrange(2000)
        attacker.send(bytes(data))


def enormous(attacker: Attacker, count: int) -> None:
    """Messages near and beyond the size limit of 1 MB, full of containers."""
    rng = random.Random(0)
    fillings = [b"\x91", b"\x81\xa1a", b"\xc0", b"\xdc\xff\xff", b"\xdd\xff\xff\xff\xff", b"\xa0"]
    for _ in range(count):
        size = rng.choice([1000, 100_000, 1_000_000, 1_048_576, 1_100_000])
        filling = rng.choice(fillings)
        attacker.send((filling * (size // len(filling) + 1))[:size])


def no_websocket(port: int, count: int) -> collections.Counter:
    """Bytes that are no handshake, or no frames after one."""
    rng, outcomes = random.Random(0), collections.Counter()
    hello = (
        b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    for _ in range(count):
        with socket.create_connection(("127.0.0.1", port), 10) as tcp:
            tcp.settimeout(PATIENCE)
            kind = rng.randrange(4)
            with contextlib.suppress(OSError):
                if kind == 0:
                    tcp.sendall(rng.randbytes(rng.randrange(1, 2000)) + b"\r\n\r\n")
                elif kind == 1:
                    broken = bytearray(hello)
                    broken[rng.randrange(len(broken) - 4)] = rng.randrange(256)
                    tcp.sendall(bytes(broken))
                elif kind == 2:
                    tcp.sendall(b"GET /" + b"x" * rng.randrange(20_000) + b" HTTP/1.1\r\n\r\n")
                else:
                    tcp.sendall(hello + rng.randbytes(rng.randrange(2, 500)))
                tcp.shutdown(socket.SHUT_WR)
                while tcp.recv(65536):
                    pass
            outcomes["ended"] += 1
    return outcomes


# ---- clients that misbehave ---------------------------------------------------------------------


def disconnects(process: Process, count: int) -> collections.Counter:
    """Clients that vanish: a reset of the connection at one of five moments."""
    outcomes = collections.Counter()
    data = wire.pack(OBSERVATION)
    head = struct.pack(">BBH", 0x82, 0x80 | 126, len(data)) if len(data) < 65536 else b""
    for number in range(count):
        moment = ("handshake", "metadata", "half a frame", "asked", "asked twice")[number % 5]
        if moment == "handshake":
            tcp = socket.create_connection(("127.0.0.1", process.port), 10)
            tcp.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nUpg")
        else:
            connection = connect(process.url, compression=None, proxy=None, legacy=True)
            connection.recv()
            tcp = connection.socket
            if moment == "half a frame":
                tcp.sendall(head + bytes(4) + data[:100])
            elif moment.startswith("asked"):
                for _ in range(moment.count("twice") + 1):
                    connection.send(data)
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        tcp.close()
        outcomes[moment] += 1
    return outcomes


def slow_readers(process: Process, count: int) -> collections.Counter:
    """Clients, all at once, that ask and ask and never read."""
    before = process.metrics()["bridgeact_clients_dropped_total"]
    frame = wire.pack({**OBSERVATION, "time": 0.0})
    outcomes, sockets = collections.Counter(), []
    mask = bytes(4)
    head = struct.pack(">BBH", 0x82, 0x80 | 126, len(frame)) + mask

    def ask(tcp):
        with contextlib.suppress(OSError):
            while True:
                tcp.sendall(head + frame)

    for _ in range(count):
        tcp = socket.socket()
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        tcp.connect(("127.0.0.1", process.port))
        tcp.sendall(
            b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        sockets.append(tcp)
        threading.Thread(target=ask, args=(tcp,), daemon=True).start()
    end = time.monotonic() + 300
    while time.monotonic() < end:
        dropped = process.metrics()["bridgeact_clients_dropped_total"] - before
        if dropped >= count:
            break
        time.sleep(0.5)
    outcomes["dropped"] = int(dropped)
    for tcp in sockets:
        tcp.close()
    return outcomes


# ---- the whole ----------------------------------------------------------------------------------


def reference(url: str) -> bytes:
    """What a client is answered to the same three observations, as bytes."""
    with Client(url) as client:
        client.reset(seed=1)
        answers = [client.infer({**OBSERVATION, "time": 0.4 * step}) for step in range(3)]
    return b"".join(answer["actions"].tobytes() for answer in answers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--messages", type=int, default=12_000)
    parser.add_argument("--disconnects", type=int, default=200)
    parser.add_argument("--slow", type=int, default=50)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    process = Process(options.checkpoint)
    before, silent = reference(process.url), 0
    good = [Good(process.url) for _ in range(2)]

    def report(name: str, outcomes: collections.Counter, begun: float) -> None:
        nonlocal silent
        silent += outcomes["silence"]
        seconds = round(time.monotonic() - begun, 1)
        line = {"phase": name, **outcomes, "seconds": seconds, **process.state()}
        print(json.dumps({**line, "good": [client.report() for client in good]}), flush=True)

    def attack(name: str, messages, count: int) -> None:
        attacker, begun = Attacker(process.url), time.monotonic()
        messages(attacker, count)
        attacker.leave()
        report(name, attacker.outcomes, begun)

    begun = time.monotonic()
    time.sleep(5)
    report("none", collections.Counter(), begun)
    half = options.messages // 2
    for _ in range(2):
        attack("imagined", imagined, half * 2 // 5)
        attack("mutated", mutated, half * 2 // 5)
        attack("enormous", enormous, half // 20)
        begun = time.monotonic()
        report("no websocket", no_websocket(process.port, half * 3 // 20), begun)
        begun = time.monotonic()
        report("disconnects", disconnects(process, options.disconnects), begun)
        begun = time.monotonic()
        slow = slow_readers(process, options.slow)
        report("slow readers", slow, begun)
        silent += options.slow - slow["dropped"]
    for client in good:
        client.end()
    same, faults = reference(process.url) == before, sum(client.faults for client in good)
    time.sleep(2)
    state, status = process.state(), process.end()
    print(json.dumps({"same_answers": same, "faults": faults, **state, "exit_status": status}))
    sys.exit(int(not same or faults > 0 or silent > 0 or status != 0))


if __name__ == "__main__":
    main()
