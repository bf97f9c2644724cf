"""Episodes of MuJoCo driven through `bridgeact serve` by the published openpi-client package.

    bridgeact serve --checkpoint=W --port=8000 &
    python -m venv /tmp/openpi && /tmp/openpi/bin/pip install openpi-client typing_extensions
    /tmp/openpi/bin/python benchmarks/serve_openpi.py --python=.venv/bin/python [--task=lift]
        [--episodes=20] [--rows=1] [--waypoint_noise=0.02] [--port=8000]
    bridgeact evaluate --checkpoint=W --suite=lift --episodes=20 --waypoint_noise=0.02 --out=DIR

The episodes and plans are those of the evaluation's last line, the samples are not. openpi's own
`Runtime`, `PolicyAgent`, `ActionChunkBroker` and `WebsocketClientPolicy` run the robot; the physics
run in a process of this project's Python, since the two packages want different NumPys. `--rows` is
how many rows of a chunk are executed before the next observation is sent: 1 is 10 Hz. One line of
JSON: successes with their 95 % Wilson interval, and the times of the answers in ms.
"""

import argparse
import json
import struct
import subprocess
import sys
import time

LENGTH = struct.Struct("<I")
DEFAULTS = {"task": "lift", "episodes": 20, "seed": 0, "waypoint_noise": 0.02}


def physics(options):
    """Run episodes by commands read from stdin: none begins an episode, (8,) is a pose."""
    from bridgeact_jax.evaluation.conditions import AXES, Condition
    from bridgeact_jax.evaluation.episodes import act, environment
    from bridgeact_jax.evaluation.planners import plan_of
    from bridgeact_jax.serving import wire

    condition = Condition("expert", seed=options.seed)
    condition = condition.with_axis(AXES["waypoint_noise"].name, options.waypoint_noise)
    env, episode, plan = environment(condition, options.task), -1, None
    while (command := receive(sys.stdin.buffer, wire.unpack)) is not None:
        if "action" in command:
            now = act(env, command["action"])
        else:
            episode += 1
            now = env.reset(options.seed, episode)
            poses = plan_of(env, condition, episode)
            plan = {
                name: getattr(poses, name)[1 : int(poses.count)]
                for name in ("position", "rotation", "gripper")
            }
        observation = {
            "position": now.position, "rotation": now.rotation, "time": now.time,
            "gripper_width": float(now.gripper_width), "cloud": env.cloud(), "plan": plan,
        }  # fmt: skip
        state = {"done": env.done, "success": env.success}
        send(sys.stdout.buffer, wire.pack({"observation": observation, **state}))


def robot(options):
    """openpi's runtime over the physics, with openpi's client."""
    from openpi_client import action_chunk_broker, msgpack_numpy, websocket_client_policy
    from openpi_client.runtime import environment, runtime
    from openpi_client.runtime.agents import policy_agent

    flags = [f"--{name}={getattr(options, name)}" for name in DEFAULTS]
    process = subprocess.Popen(
        [options.python, __file__, "--physics", *flags],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    policy = websocket_client_policy.WebsocketClientPolicy("127.0.0.1", options.port)

    class Timed:
        """The policy, with the time of each answer."""

        milliseconds = []

        def infer(self, observation):
            start = time.perf_counter()
            answer = policy.infer(observation)
            self.milliseconds.append(1e3 * (time.perf_counter() - start))
            if answer["status"] != "ok":
                sys.exit(f"the server answered {answer['status']}: {answer.get('message')}")
            limited.append(len(answer["limited"]) > 0)
            return {"actions": answer["actions"]}

        def reset(self):
            policy.infer({"request": "reset", "seed": len(successes)})

    class Physics(environment.Environment):
        def reset(self):
            if len(successes) < options.episodes:
                self._exchange({})

        def is_episode_complete(self):
            if self._state["done"]:
                successes.append(self._state["success"])
            return self._state["done"]

        def get_observation(self):
            return self._state["observation"]

        def apply_action(self, action):
            self._exchange({"action": action["actions"]})

        def _exchange(self, command):
            send(process.stdin, msgpack_numpy.packb(command))
            self._state = receive(process.stdout, msgpack_numpy.unpackb)

    successes, limited = [], []
    agent = policy_agent.PolicyAgent(
        action_chunk_broker.ActionChunkBroker(Timed(), action_horizon=options.rows)
    )
    runtime.Runtime(Physics(), agent, [], num_episodes=options.episodes).run()
    process.stdin.close()
    process.wait()
    times = sorted(Timed.milliseconds)
    low, high = wilson(sum(successes), len(successes))
    print(
        json.dumps(
            {
                "task": options.task,
                "rows": options.rows,
                "episodes": len(successes),
                "successes": sum(successes),
                "ci95": [round(low, 3), round(high, 3)],
                "answers": len(times),
                "limited": sum(limited),
                "p50_ms": round(times[len(times) // 2], 1),
                "p95_ms": round(times[int(0.95 * len(times))], 1),
            }
        )
    )


def wilson(successes, episodes):
    """95 % interval of a success rate."""
    z, share = 1.96, successes / episodes
    centre = share + z * z / (2 * episodes)
    spread = z * (share * (1 - share) / episodes + z * z / (4 * episodes**2)) ** 0.5
    return [(centre + sign * spread) / (1 + z * z / episodes) for sign in (-1, 1)]


def send(stream, data):
    stream.write(LENGTH.pack(len(data)) + data)
    stream.flush()


def receive(stream, unpack):
    head = stream.read(LENGTH.size)
    return unpack(stream.read(LENGTH.unpack(head)[0])) if head else None


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--physics", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--python", default=".venv/bin/python")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--rows", type=int, default=1)
    for name, value in DEFAULTS.items():
        parser.add_argument(f"--{name}", type=type(value), default=value)
    options = parser.parse_args()
    (physics if options.physics else robot)(options)


if __name__ == "__main__":
    main()
