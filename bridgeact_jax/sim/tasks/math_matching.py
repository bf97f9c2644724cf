"""Math matching: an equation on a whiteboard, three number cards, and one of them is the answer."""

from dataclasses import dataclass

import mujoco
import numpy as np
from PIL import Image

from bridgeact_jax.sim import front_camera
from bridgeact_jax.sim.book import Verdict
from bridgeact_jax.sim.equations import Equation, equations
from bridgeact_jax.sim.handwriting import INKS, OPEN_HANDS, ROBOT_HANDS, write
from bridgeact_jax.sim.objects import BOX, Box
from bridgeact_jax.sim.splits import is_held_out
from bridgeact_jax.sim.tasks.base import CLEARANCE, GRASP_BELOW_TOP, LIFT_HEIGHT, Placed, Step
from bridgeact_jax.sim.tasks.reading import DOWN, REWORDED, ReadLayout, ReadTask, draw_start
from bridgeact_jax.sim.tasks.short import LIFT_HOLD, LIFT_SUCCESS
from bridgeact_jax.sim.tasks.wording import MATH, MATH_REWORDED

POSITIONS = ("left", "middle", "right")
CARDS = ("card", "other_1", "other_2")  # the first is the answer
CARD = (0.0125, 0.040, 0.034)  # half sizes, standing, its face towards the camera
COLUMNS, ROWS = (-0.125, 0.0, 0.125), (0.47, 0.51, 0.55)  # metres along y and x
ASIDE, TURN = 0.008, 0.12  # metres and radians by which a card stands beside its place
TWO_STEPS = 0.4  # share of the equations
OPEN_CARDS, OPEN_ARRANGEMENTS = 0.5, 1 / 3  # shares that only the open world has
MOST = 99  # on a card

BOARD = "whiteboard"
BOARD_HALF = np.array([0.153, 0.038, 0.004])
BOARD_PLACE = np.array([0.711, 0.0, 0.035])
BOARD_PIXELS, CARD_PIXELS, FACE_PIXELS = (64, 256), (68, 80), 80  # rows, columns; of a cube's face
_FACES = 6


@dataclass(frozen=True)
class MathLayout(ReadLayout):
    """`writing` is what the hand-written textures are drawn from."""

    writing: int


class Card(Box):
    """A standing card with a number on the face towards the camera. Size: as a box."""

    def __init__(self):
        super().__init__(CARD)

    def build(self, spec, name):
        super().build(spec, name)
        _add_texture(
            spec, name, mujoco.mjtTexture.mjTEXTURE_CUBE, (_FACES * FACE_PIXELS, FACE_PIXELS)
        )
        spec.geom(name).material = name


class MathMatching(ReadTask):
    """Lift the card with the answer."""

    world, time_limit = "math_matching", 12.0
    things = {name: Card() for name in CARDS}
    twins = {"other_1": "card", "other_2": "card"}
    targets = ("card",)
    subgoals = ("grasped", "lifted")

    def build(self, spec):
        super().build(spec)
        _add_texture(spec, BOARD, mujoco.mjtTexture.mjTEXTURE_2D, BOARD_PIXELS)
        rotation = np.empty(4)
        upwards = front_camera.ROTATION * [1, -1, -1]  # the board's axes: right, up, to the camera
        mujoco.mju_mat2Quat(rotation, upwards.reshape(-1))
        spec.worldbody.add_body(name=BOARD, pos=BOARD_PLACE, quat=rotation).add_geom(
            name=BOARD, type=BOX, size=BOARD_HALF, material=BOARD, contype=0
        )

    def draw(self, rng):
        steps = 1 + (rng.uniform() < TWO_STEPS)
        pool = equations(steps, open_world=self.open_world)
        equation = pool[rng.integers(len(pool))]
        values = self._values(equation, rng)
        rows = self._arrangement(rng)
        order = rng.permutation(3)  # the place of each of `CARDS`
        things = {
            name: Placed(
                np.array([ROWS[rows[at]], COLUMNS[at]]) + rng.uniform(-ASIDE, ASIDE, 2),
                rng.uniform(-TURN, TURN), thing.draw_size(rng), "white",
            )
            for (name, thing), at in zip(self.things.items(), order, strict=True)
        }
        hands = rng.choice(OPEN_HANDS if self.open_world else ROBOT_HANDS, 2).tolist()
        wordings = MATH_REWORDED if self.split == REWORDED else MATH
        by_place = [values[list(order).index(at)] for at in range(3)]
        facts = {
            "equation": equation.text,
            "steps": list(equation.steps),
            "answer": equation.answer,
            "cards": dict(zip(POSITIONS, by_place, strict=True)),
            "pick": POSITIONS[order[0]],
            "hands": hands,
            "arrangement": rows,
        }
        return MathLayout(
            *draw_start(rng), things, wordings[rng.integers(len(wordings))], facts,
            int(rng.integers(2**63)),
        )

    def place(self, world, layout):
        super().place(world, layout)
        rng, facts = np.random.default_rng(layout.writing), layout.facts
        ink = INKS[rng.integers(len(INKS))]
        world.draw(BOARD, write(facts["equation"], *BOARD_PIXELS, facts["hands"][0], ink, rng))
        places = sorted(CARDS, key=lambda name: layout[name].xy[1])
        for name, value in zip(places, facts["cards"].values(), strict=True):
            number = write(str(value), *CARD_PIXELS, facts["hands"][1], ink, rng)
            world.draw(name, _faces(number))

    def plan(self, world, layout):
        grasp = world.position("card")
        grasp[2] = world.top("card") - GRASP_BELOW_TOP
        return [
            Step(grasp + [0, 0, CLEARANCE], DOWN, 1.0, loose=True),
            Step(grasp, DOWN, 0.0),
            Step(grasp + [0, 0, LIFT_HEIGHT], DOWN, 0.0, loose=True),
        ]

    def judge(self, world, layout, book):
        raised = bool(world.bottom("card") >= LIFT_SUCCESS)
        return Verdict(
            {"grasped": "card" in book.lifted, "lifted": raised},
            book.lasts("raised", raised, LIFT_HOLD),
        )

    def _values(self, equation: Equation, rng: np.random.Generator) -> list[int]:
        """The answer and two other numbers, likely mistakes or not, in a set of this world."""
        answer = equation.answer
        near = [answer + by for by in (-10, -2, -1, 1, 2, 10)]
        likely = [*equation.numbers, *equation.results, *near]
        while True:
            others = [
                int(rng.choice(likely) if rng.uniform() < 0.5 else rng.integers(MOST + 1))
                for _ in range(2)
            ]
            values = [answer, *others]
            if len(set(values)) == 3 and 0 <= min(values) and max(values) <= MOST:
                if cards_are_open(values) == self.open_world:
                    return values

    def _arrangement(self, rng: np.random.Generator) -> list[int]:
        while True:
            rows = rng.integers(len(ROWS), size=3).tolist()
            if arrangement_is_open(rows) == self.open_world:
                return rows


def cards_are_open(values: list[int]) -> bool:
    """Whether a set of three card values belongs to the open world."""
    return is_held_out("cards/" + " ".join(map(str, sorted(values))), OPEN_CARDS)


def arrangement_is_open(rows: list[int]) -> bool:
    """Whether an arrangement, the row of each card from the left, belongs to the open world."""
    return is_held_out("arrangement/" + " ".join(map(str, rows)), OPEN_ARRANGEMENTS)


def _add_texture(spec, name: str, kind, size: tuple[int, int]) -> None:
    height, width = size
    texture = spec.add_texture(name=name, type=kind, height=height, width=width, nchannel=3)
    texture.data = bytes(height * width * 3)
    material = spec.add_material(name=name, specular=0.0, shininess=0.0, emission=0.3)
    material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = name


def _faces(number: np.ndarray) -> np.ndarray:
    """The six faces of a cube's texture, of which the first, towards +x, shows the number."""
    square = Image.fromarray(number).resize((FACE_PIXELS, FACE_PIXELS), Image.Resampling.BOX)
    blank = np.broadcast_to(number[:1, :1], (FACE_PIXELS, FACE_PIXELS, 3))
    return np.concatenate([np.rot90(np.asarray(square)), *[blank] * (_FACES - 1)])
