"""Button, drawer, peg and socket: how they move, what counts as done, where they stand."""

import mujoco
import numpy as np
import pytest

from bridgeact_jax.sim.follower import guidance_of, time_guidance
from bridgeact_jax.sim.kinematics import shared
from bridgeact_jax.sim.mechanisms import Button, Cabinet
from bridgeact_jax.sim.tasks.base import in_frame, out_of_frame, tool_down
from tests.sim.episodes import SEED, environment, started

FINGERTIP = 0.0042  # metres below the Panda's tool frame
SURFACE = 0.002
UPRIGHT, LYING = (1, 0, 0, 0), (np.sqrt(0.5), 0, np.sqrt(0.5), 0)


def wait(env, seconds=1.0, *, gripper=1.0):
    """Let the physics run with the hand going to where it started."""
    for _ in range(round(10 * seconds)):
        env.step(env.layout.start, tool_down(env.layout.start_yaw), gripper)


def follow(env, plan):
    for target in zip(*time_guidance(guidance_of(env.waypoints_of(plan))), strict=True):
        env.step(*target)


def move(env, body, position, rotation=UPRIGHT):
    """Put a free body somewhere, at rest."""
    joint = env.data.joint(body)
    joint.qpos, joint.qvel = (*position, *rotation), 0


def slide(env, joint, share, travel):
    """Set a slide to a share of its travel."""
    env.world.set_joint(joint, share * travel)
    mujoco.mj_kinematics(env.model, env.data)


# ---- joints -------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_the_spring_returns_the_button(share):
    env = started("press_button")
    slide(env, "button", share, Button.travel)
    wait(env, 0.5)
    assert abs(env.world.joint("button")) < 5e-4


def test_a_button_goes_in_as_deep_as_the_finger_does_and_comes_back():
    env = started("press_button")
    above = env.plan()[0]
    follow(env, [above])
    top = env.world.top("button_cap")
    for depth in (0.004, 0.008):
        position = np.array([*above.position[:2], top - depth + FINGERTIP])
        for _ in range(12):
            env.step(position, above.rotation, 0.0)
        assert env.world.joint("button") == pytest.approx(depth, abs=1.5e-3)
    assert env.subgoals == {"touched": True, "pressed": False} and not env.success
    wait(env)
    assert abs(env.world.joint("button")) < 5e-4


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_drawer_stays_where_it_is(share):
    env = started("open_drawer")
    slide(env, "cabinet", share, Cabinet.travel)
    wait(env)
    assert env.world.joint("cabinet") == pytest.approx(share * Cabinet.travel, abs=2e-4)


def test_a_drawer_stays_where_the_hand_lets_go():
    env = started("open_drawer")
    follow(env, env.plan())
    left = env.world.joint("cabinet")
    assert env.success and left > 0.9 * Cabinet.travel
    wait(env)
    assert env.world.joint("cabinet") == pytest.approx(left, abs=5e-4)
    assert env.world.joint("twin") == pytest.approx(0, abs=2e-4)


def test_a_finger_behind_the_handle_opens_the_drawer_too():
    env = started("open_drawer")
    heading = env.world.heading("cabinet")
    behind = 0.038 * np.array([np.cos(heading), np.sin(heading), 0.0])
    follow(env, [step._replace(position=step.position + behind, gripper=0.0)
                 for step in env.plan()[:3]])
    assert env.subgoals["opened"]


# ---- what counts --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, share, kind",
    [("button", 0.5, "did_not_reach"), ("button", 0.9, None), ("twin", 0.9, "wrong_object")],
)
def test_how_deep_a_button_must_be_pressed(name, share, kind):
    env = started("press_button")
    spring, weight = env.model.joint(name), env.model.body(f"{name}_cap").mass * 9.81
    into = share * Button.travel - env.model.qpos_spring[spring.qposadr[0]]
    env.data.joint(name).qfrc_applied = spring.stiffness * into - weight
    wait(env)
    assert env.world.joint(name) == pytest.approx(share * Button.travel, abs=1e-4)
    assert env.failure_kind == kind and env.success == (kind is None)


@pytest.mark.parametrize(
    "name, share, kind",
    [("cabinet", 0.5, "did_not_reach"), ("cabinet", 0.7, None), ("twin", 0.7, "wrong_object")],
)
def test_how_far_a_drawer_must_be_open(name, share, kind):
    env = started("open_drawer")
    slide(env, name, share, Cabinet.travel)
    wait(env)
    assert env.failure_kind == kind and env.success == (kind is None)


@pytest.mark.parametrize(
    "name, local, inserted",
    [("socket", (0.0, 0.0), True), ("twin", (0.0, 0.0), False), ("socket", (0.06, 0.0), False)],
)
def test_a_peg_beside_the_hole_is_not_inserted(name, local, inserted):
    env = started("insert_peg")
    socket = env.layout[name]
    half_turn = socket.yaw / 2
    position = [*out_of_frame(np.array(local), socket), env.world.half("peg")[2] + 0.001]
    move(env, "peg", position, (np.cos(half_turn), 0, 0, np.sin(half_turn)))
    wait(env)
    assert env.world.matrix("peg")[2, 2] > 0.99  # it stands, wherever
    assert env.subgoals["inserted"] == env.success == inserted
    assert env.wrong_object == (name == "twin")


@pytest.mark.parametrize("rotation", [UPRIGHT, LYING])
def test_a_peg_on_the_socket_is_not_inserted(rotation):
    env = started("insert_peg")
    socket = env.layout["socket"]
    aside = 0.0 if rotation is LYING else (socket.size[0] + socket.size[1]) / 2
    xy, up = out_of_frame(np.array([aside, 0.0]), socket), env.world.half("peg")[2]
    move(env, "peg", [*xy, socket.size[2] + up + 0.01], rotation)
    wait(env)
    assert not env.subgoals["inserted"] and not env.success


def test_a_peg_fits_with_a_few_millimetres_of_room():
    env = environment("insert_peg")
    for episode in range(5):
        env.reset(SEED, episode)
        half = env.world.half("peg")[0]
        for name in ("socket", "twin"):
            for wall in ("wall0", "wall2"):  # on either side, along the socket's own x
                centre = in_frame(env.data.geom(f"{name}_{wall}").xpos, env.layout[name])[0]
                room = abs(centre) - env.world.half(f"{name}_{wall}")[0] - half
                assert 0.002 < room < 0.004


@pytest.mark.parametrize(
    "on_roof, share, done", [(False, 0.0, True), (False, 0.5, False), (True, 0.0, False)]
)
def test_the_cube_must_be_in_the_closed_drawer(on_roof, share, done):
    env = started("put_in_drawer")
    slide(env, "cabinet", share, Cabinet.travel)
    world = env.world
    low, high = env.task.things["cabinet"].inside(env.layout["cabinet"].size)
    middle = (low + high) / 2 - Cabinet.origin
    centre = world.position("cabinet_drawer") + world.matrix("cabinet_drawer") @ middle
    under = world.top("cabinet") if on_roof else low[2]
    move(env, "cube", [*centre[:2], under + world.half("cube")[2] + 0.001])
    wait(env)
    assert env.subgoals["inside"] == (not on_roof)
    assert env.success == env.subgoals["closed"] == done


@pytest.mark.parametrize("kind", ["wrong_order", "missed_grasp"])
def test_closing_an_empty_drawer(kind):
    """Without having tried to take the cube it is the wrong order."""
    env = started("put_in_drawer")
    plan = env.plan()
    follow(env, plan[:4])
    assert env.subgoals["opened"]
    if kind == "missed_grasp":
        follow(env, [step._replace(position=step.position + [0, 0, 0.05]) for step in plan[4:10]])
    follow(env, plan[10:])
    assert env.world.joint("cabinet") < 0.1 * Cabinet.travel
    assert env.failure_kind == kind


# ---- where things stand -------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["press_button", "open_drawer", "insert_peg", "put_in_drawer"])
def test_every_waypoint_is_in_reach(task):
    env = environment(task)
    for episode in range(6):
        env.reset(SEED, episode)
        joints = np.array(env.arm.home)
        for step in env.plan():
            joints = shared().solve(step.position, step.rotation, joints, iterations=40)
            env.data.qpos[: len(joints)] = joints
            mujoco.mj_kinematics(env.model, env.data)
            np.testing.assert_allclose(env.world.tool, step.position, atol=1e-3)


@pytest.mark.parametrize(
    "task, geom, points",
    [
        ("press_button", "button_top", 120), ("open_drawer", "cabinet_handle", 25),
        ("insert_peg", "peg", 100), ("put_in_drawer", "cabinet_handle", 40),
        ("put_in_drawer", "cube", 50),
    ],
)
def test_clouds_show_what_has_to_be_found(task, geom, points):
    for episode in range(3):
        env = started(task, episode)
        placed = env.data.geom(geom)
        local = (env.cloud().astype(float) - placed.xpos) @ placed.xmat.reshape(3, 3)
        beyond = np.abs(local) - env.world.half(geom)
        assert np.sum(np.abs(beyond.max(axis=1)) < SURFACE) >= points
