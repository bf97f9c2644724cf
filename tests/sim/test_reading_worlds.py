"""The worlds that are read: what they hold, who belongs where, and the scripted expert."""

import re

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridgeact_jax.evaluation.conditions import Condition
from bridgeact_jax.evaluation.evaluate import suite_tasks
from bridgeact_jax.evaluation.films import can_render
from bridgeact_jax.evaluation.rollouts import Job, run_job
from bridgeact_jax.geometry.cameras import project
from bridgeact_jax.sim import front_camera
from bridgeact_jax.sim.environment import episode_rng
from bridgeact_jax.sim.equations import LARGEST, Equation, equations
from bridgeact_jax.sim.handwriting import HANDS, INKS, OPEN_HANDS, ROBOT_HANDS, write
from bridgeact_jax.sim.tasks import TASKS, WORLDS, math_matching, toy_placement, wording
from tests.sim.episodes import SEED, environment, follow, started

DRAWS = 60
every_world = pytest.mark.parametrize("name", WORLDS)
MATH = [name for name in WORLDS if name.startswith("math")]
TOYS = [name for name in WORLDS if name.startswith("toy")]


def facts_of(name, count=DRAWS):
    task = WORLDS[name]
    return [task.draw(episode_rng("t", name, 3, number)).facts for number in range(count)]


def test_the_suite_knows_nothing_of_them():
    assert not TASKS.keys() & WORLDS.keys() and len(TASKS) == 12
    assert suite_tasks("all") == list(TASKS)
    assert suite_tasks("toy_placement_open,lift") == ["lift", "toy_placement_open"]


@pytest.mark.parametrize("steps", [1, 2])
def test_equations_are_right_and_each_is_in_one_world(steps):
    sets = [set(equations(steps, open_world=world)) for world in (False, True)]
    assert not sets[0] & sets[1]
    assert all(0.4 < len(one) / len(sets[0] | sets[1]) < 0.6 for one in sets)
    for equation in sets[0] | sets[1]:
        so_far = equation.numbers[0]
        for sign, number in zip(equation.signs, equation.numbers[1:], strict=True):
            so_far = eval(f"{so_far} {sign.replace('×', '*')} {number}")
            assert 0 <= so_far <= LARGEST
        assert equation.answer == so_far
        assert [step.split(" = ")[1] for step in equation.steps] == [*map(str, equation.results)]
    one_step = 19 * 10 + sum(a >= b for a in range(19) for b in range(10)) + 81
    two_steps = sum(
        min(x, x + t * c) >= 0
        for a in range(1, 10) for b in range(1, 10) for c in range(1, 10)
        for s in (1, -1) for t in (1, -1) for x in [a + s * b]
    )  # fmt: skip
    assert len(sets[0]) + len(sets[1]) == (one_step if steps == 1 else two_steps)


@pytest.mark.parametrize("name", MATH)
def test_math_matching_stays_in_its_world(name):
    open_world = WORLDS[name].open_world
    picks = []
    for facts in facts_of(name):
        numbers, signs = (re.findall(p, facts["equation"]) for p in (r"\d+", "[-+×]"))
        equation = Equation(tuple(map(int, numbers)), tuple(signs))
        values = list(facts["cards"].values())
        assert equation.text == facts["equation"] and equation.is_open == open_world
        assert equation.answer == facts["answer"] == facts["cards"][facts["pick"]]
        assert len(set(values)) == 3 and 0 <= min(values) and max(values) <= 99
        assert math_matching.cards_are_open(values) == open_world
        assert math_matching.arrangement_is_open(facts["arrangement"]) == open_world
        assert set(facts["hands"]) <= set(OPEN_HANDS if open_world else ROBOT_HANDS)
        picks.append(facts["pick"])
    assert all(picks.count(at) > DRAWS / 6 for at in math_matching.POSITIONS)


@pytest.mark.parametrize("name", TOYS)
def test_toy_placement_stays_in_its_world(name):
    relations = []
    for facts in facts_of(name):
        toy, reference = facts["toy"], facts["reference"]
        fresh = [toy_placement.toy_is_open(one) for one in (toy, reference)]
        pair = toy_placement.pair_is_open(toy, facts["relation"])
        assert len(set(facts["toys"])) == 3 and {toy, reference} <= set(facts["toys"])
        if WORLDS[name].open_world:
            assert all(fresh) if facts["novel"] == "toy" else pair and not any(fresh)
        else:
            assert not pair and not any(map(toy_placement.toy_is_open, facts["toys"]))
        from_left = [facts["places"][one][1] for one in facts["toys"]]
        assert from_left == sorted(from_left)
        relations.append(facts["relation"])
    assert all(relations.count(one) > DRAWS / 12 for one in toy_placement.RELATIONS)


def test_hands_and_wordings_are_disjoint_and_their_words_are_known():
    assert not set(OPEN_HANDS) & set(ROBOT_HANDS)
    assert set(OPEN_HANDS) | set(ROBOT_HANDS) == set(HANDS)
    for trained, kept in (
        (wording.MATH, wording.MATH_REWORDED), (wording.TOYS, wording.TOYS_REWORDED)
    ):
        assert not set(trained) & set(kept)
        words = [set(re.findall("[a-z]+", " ".join(texts))) for texts in (trained, kept)]
        assert words[1] <= words[0]


@every_world
def test_instructions_are_of_their_variant(name):
    kept = wording.MATH_REWORDED if name in MATH else wording.TOYS_REWORDED
    layouts = [WORLDS[name].draw(episode_rng("t", name, 3, number)) for number in range(20)]
    for layout in layouts:
        meant = {
            text.format(**{key: layout.facts[key] for key in ("toy", "relation", "reference")})
            if name in TOYS else text
            for text in kept
        }
        assert (layout.instruction in meant) == (WORLDS[name].split == "reworded")


@pytest.mark.parametrize("name", ["math_matching_open", "toy_placement", "toy_placement_open"])
def test_expert_succeeds(name):
    env = environment(name)
    for episode in range(4):
        env.reset(SEED, episode)
        follow(env, env.waypoints())
        assert env.success and all(env.subgoals.values()), (episode, env.failure_kind)


def test_an_evaluation_takes_them_by_name():
    episodes = (("math_matching_reworded", 0), ("toy_placement", 1))
    outcome = run_job(Job("worlds", "worlds_0", Condition("spline"), episodes))
    assert [record["task"] for record in outcome.records] == [name for name, _ in episodes]
    assert all(record["success"] for record in outcome.records)


def test_the_wrong_card_is_no_success():
    env = started("math_matching", 0)
    plan = env.waypoints()
    there = env.world.position("other_1")[:2] - env.world.position("card")[:2]
    position = plan.position.copy()
    position[1:, :2] += there
    follow(env, plan._replace(position=position), steps=80)
    assert not env.success and env.failure_kind == "wrong_object"


@pytest.mark.parametrize(
    "toy, reference, holds",
    [
        ((0.5, -0.1), (0.5, 0.0), {"left of"}),
        ((0.5, 0.1), (0.5, 0.0), {"right of"}),
        ((0.6, 0.02), (0.5, 0.0), {"in front of"}),
        ((0.4, -0.02), (0.5, 0.0), {"behind"}),
        ((0.51, 0.01), (0.5, 0.0), {"on"}),
        ((0.57, 0.07), (0.5, 0.0), set()),
        ((0.5, 0.3), (0.5, 0.0), set()),
    ],
)
def test_relations(toy, reference, holds):
    found = {
        relation for relation in toy_placement.RELATIONS
        if toy_placement.related(relation, np.array(toy), np.array(reference))
    }
    assert found == holds


@given(st.floats(0.44, 0.66), st.floats(-0.16, 0.16))
def test_the_camera_looks_at_the_table_and_back(x, y):
    """The pixel by a naive pinhole; left in the picture is -y, lower is +x."""
    u, v = front_camera.pixel_of(np.array([x, y, 0.0]))
    assert -0.5 <= u <= 95.5 and -0.5 <= v <= 63.5
    np.testing.assert_allclose(front_camera.on_table(np.array([u, v])), [x, y], atol=1e-9)
    elevation, half = np.radians(42), np.tan(np.radians(14.5) / 2)
    eye = np.array([0.60 + np.cos(elevation), 0, 0.03 + np.sin(elevation)])
    ahead = -np.array([np.cos(elevation), 0, np.sin(elevation)])
    ray = np.array([x, y, 0.0]) - eye
    depth, down = ray @ ahead, np.cross(ahead, [0.0, 1.0, 0.0])
    np.testing.assert_allclose(u, 47.5 + 32 / half * y / depth, atol=1e-9)
    np.testing.assert_allclose(v, 31.5 + 32 / half * (ray @ down) / depth, atol=1e-9)


def test_the_camera_of_a_request_is_the_same():
    points = np.random.default_rng(0).uniform((0.4, -0.2, 0), (0.7, 0.2, 0.2), (20, 3))
    camera = jax.tree.map(np.float32, front_camera.camera())
    pixels, depth = project(camera, points.astype(np.float32))
    np.testing.assert_allclose(pixels, front_camera.pixel_of(points), atol=1e-3)
    assert np.all((depth > 0.7) & (depth < 1.3))


@pytest.mark.parametrize("hand", HANDS)
def test_writing_fills_its_sheet_and_no_two_are_alike(hand):
    rng = np.random.default_rng(1)
    one, other = (write("14 - 6", 40, 160, hand, INKS[0], rng) for _ in range(2))
    assert one.shape == (40, 160, 3) and one.dtype == np.uint8
    assert not np.array_equal(one, other)
    inked = np.flatnonzero((one.min(axis=-1) < 125).any(axis=0))
    assert len(inked) > 30 and inked[0] > 0 and inked[-1] < 159
    again = write("14 - 6", 40, 160, hand, INKS[0], np.random.default_rng(1))
    np.testing.assert_array_equal(one, again)


@pytest.mark.skipif(can_render() is not None, reason="no graphics library")
def test_the_picture_shows_what_is_written_where_the_camera_says():
    """Cards and board are white where they should be, with ink; another episode differs."""
    env = started("math_matching", 0)
    picture = env.front().astype(int)
    assert picture.shape == (64, 96, 3)
    places = [env.world.position(name) for name in math_matching.CARDS]
    for place in [*places, math_matching.BOARD_PLACE]:
        u, v = np.round(front_camera.pixel_of(place)).astype(int)
        patch = picture[v - 4 : v + 4, u - 8 : u + 8].reshape(-1, 3)
        assert patch.min(axis=1).max() > 200 and patch.min() < 120
    table = picture[2, 2]
    assert table[0] - table[2] > 40  # the wood
    other = environment("math_matching")
    other.reset(SEED, 1)
    assert np.abs(other.front().astype(int) - picture).max() > 100
    other.reset(SEED, 0)
    np.testing.assert_array_equal(other.front(), picture)


@pytest.mark.skipif(can_render() is not None, reason="no graphics library")
def test_toys_are_seen_in_their_colours():
    env = started("toy_placement", 2)
    picture = env.front().astype(float)
    for name in toy_placement.THINGS:
        colour = np.array(toy_placement.COLOURS[env.layout[name].colour][:3])
        u, v = np.round(front_camera.pixel_of(env.world.position(name))).astype(int)
        seen = picture[v - 1 : v + 2, u - 1 : u + 2].reshape(-1, 3).mean(axis=0)
        likeness = seen @ colour / np.linalg.norm(seen) / np.linalg.norm(colour)
        assert likeness > 0.97, (env.layout[name].name, seen)
