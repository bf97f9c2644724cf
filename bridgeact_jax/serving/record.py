"""An episode of MuJoCo as a recorded RGB-D stream: colour, depth, camera and arm at 10 Hz.

Of the depth the robot is cut out, as a robot's own driver does by its model: an expert has never
seen points of the robot. The colours keep it.

The arm follows the plan of a perfect planner, which the stream holds too; `bridgeact play` sends
it to a server as a robot would.
"""

from pathlib import Path

import numpy as np
from absl import flags
from scipy.ndimage import binary_dilation

from bridgeact_jax.errors import UserError
from bridgeact_jax.progress import Progress
from bridgeact_jax.serving.recording import Recording, write_recording
from bridgeact_jax.sim import rendering
from bridgeact_jax.sim.environment import CONTROL_PERIOD, Environment
from bridgeact_jax.sim.follower import guidance_of, time_guidance

SIZE = 240  # pixels a side, as many as the rays of the cameras that the expert learned from
EDGE = 2  # pixels around the robot that are cut out with it


def define_flags() -> None:
    """Flags of `bridgeact record`."""
    flags.DEFINE_string("task", "lift", "the task")
    flags.DEFINE_integer("episode", 0, "which episode of the task", lower_bound=0)
    flags.DEFINE_integer("seed", 0, "of the episode, as evaluation counts them", lower_bound=0)
    flags.DEFINE_integer("size", SIZE, "pixels a side", lower_bound=16, upper_bound=1024)
    flags.DEFINE_string("out", None, "the file to write, .npz")
    flags.mark_flag_as_required("out")


def main(argv: list[str]) -> None:
    """Entry point of `bridgeact record`."""
    del argv
    args = flags.FLAGS
    env = Environment(args.task)
    recording = record(env, args.seed, args.episode, args.size)
    out = Path(args.out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out={out}: cannot be written: {error.strerror}") from None
    write_recording(out, recording)
    ended = "success" if env.success else env.failure_kind
    print(
        f"{out}: {len(recording)} frames of {args.size} x {args.size}, "
        f"{out.stat().st_size / 1e6:.1f} MB; '{recording.prompt}': {ended}"
    )


def record(env: Environment, seed: int, episode: int, size: int = SIZE) -> Recording:
    """An episode of `env` whose exact plan is followed to the episode's end.

    Raises UserError where there is no graphics library.
    """
    measured, commanded, pictures, depths = [env.reset(seed, episode)], [], [], []
    plan = env.waypoints()
    targets = list(zip(*time_guidance(guidance_of(plan)), strict=True))
    position, rotation = env.cameras[0]
    most = round(env.task.time_limit / CONTROL_PERIOD)
    with Progress(most, "frames", "recording") as progress:
        while True:
            picture, depth, _ = env.view(size)
            robot = rendering.robot_pixels(env.scene, env.world, env.cameras[0], size)
            depth[binary_dilation(robot, iterations=EDGE)] = 0
            pictures.append(picture)
            commanded.append(float(env.world.gripper_open))
            depths.append(np.round(1e3 * depth).astype(np.uint16))
            progress.update()
            if env.done:
                break
            measured.append(env.step(*targets[min(env.steps, len(targets) - 1)]))
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = rotation, position
    to_centres = np.array([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])
    return Recording(
        time=np.array([one.time for one in measured]),
        position=np.array([one.position for one in measured], np.float32),
        rotation=np.array([one.rotation for one in measured], np.float32),
        gripper_width=np.array([one.gripper_width for one in measured], np.float32),
        gripper=np.array(commanded, np.float32),
        depth=np.stack(depths),
        intrinsics=rendering.intrinsics(size) - to_centres,
        camera_pose=np.tile(pose, (len(measured), 1, 1)),
        prompt=env.instruction,
        image=np.stack(pictures),
        plan_position=plan.position[1:],
        plan_rotation=plan.rotation[1:],
        plan_gripper=plan.gripper[1:],
    )
