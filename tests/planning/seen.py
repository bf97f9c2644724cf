"""A box under a camera in closed form, and the answers in a record of fine-tuning data."""

import json

import numpy as np

DOWN = np.array([0.0, 1.0, 0.0, 0.0])
BOX, TOP = (0.52, 0.12), 0.04  # metres: middle and height of a box 6 cm wide, seen from above


def depth_of_box(camera, height=40, width=60):
    """(H, W) metres of a table 0.8 m below the camera with the box on it."""
    v, u = np.mgrid[:height, :width]
    z = 0.8 - TOP
    x = camera.T_base_camera.position[0] + (u - camera.cx) / camera.fx * z
    y = camera.T_base_camera.position[1] - (v - camera.cy) / camera.fy * z
    inside = (np.abs(x - BOX[0]) < 0.03) & (np.abs(y - BOX[1]) < 0.03)
    return np.where(inside, z, 0.8).astype(np.float32)


def texts_of(form, record):
    """The two answers in a record of any format."""
    record = json.loads(record)
    if form == "llava":
        return [turn["value"] for turn in record["conversations"] if turn["from"] == "gpt"]
    return [turn["content"] for turn in record["messages"] if turn["role"] == "assistant"]
