"""The commands that follow from what an expert wants."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bridgeact_jax.evaluation.gripper import STANDS, follow, settled
from bridgeact_jax.sim.environment import CLOSE_BELOW, OPEN_ABOVE

WANTED = arrays(np.float32, (30, 3), elements=st.floats(0, 1, width=32))


@given(WANTED, arrays(np.float32, 3, elements=st.sampled_from([0.0, 1.0])))
def test_a_command_stands_until_the_fingers_have_settled(wanted, start):
    """Against a loop over hands and steps that says the rule in words."""
    gripper, commands = settled(start), []
    for row in wanted:
        gripper = follow(gripper, row)
        commands.append(gripper.command)
    for hand, expected in enumerate(start):
        since = STANDS
        for step in range(len(wanted)):
            word = wanted[step, hand]
            if since >= STANDS and (word < CLOSE_BELOW if expected else word > OPEN_ABOVE):
                expected, since = 1 - expected, 0
            since += 1
            assert commands[step][hand] == expected


def test_a_single_hand_is_followed_as_one_of_many():
    many, one = settled(np.ones(2)), settled(1.0)
    for word in (0.9, 0.1, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.1):
        many, one = follow(many, np.full(2, word)), follow(one, word)
        assert many.command[0] == many.command[1] == one.command
