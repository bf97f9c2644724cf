"""A model and its data, read and written by the names of bodies, joints and geoms.

The only place besides the physics loop that knows MuJoCo's indices. Writing is for the start of an
episode; the model must be the environment's own copy.
"""

import functools

import mujoco
import numpy as np

from bridgeact_jax.sim.arms.arm import LEFT_FINGER, ROOT, TCP_SITE

DENSITY = 1100.0  # kg/m^3 of free boxes: a 45 mm cube weighs 0.1 kg
_CORNERS = np.array(np.meshgrid((-1, 1), (-1, 1), (-1, 1))).reshape(3, 8).T
_FREE = mujoco.mjtJoint.mjJNT_FREE


def robot_geoms(model: mujoco.MjModel) -> np.ndarray:
    """(ngeom,) bool: which geoms of a scene belong to the robot."""
    return model.body_rootid[model.geom_bodyid] == model.body(ROOT).id


class World:
    """What tasks see of an environment. Base frame, metres, radians."""

    def __init__(self, model: mujoco.MjModel, data: mujoco.MjData):
        self.model, self.data = model, data
        self.gripper_open = True  # as commanded
        self.masses_changed = False
        self.pictures: dict[str, np.ndarray] = {}  # by texture, what is written on things
        self._tcp = model.site(TCP_SITE).id
        finger = model.joint(LEFT_FINGER)
        self._finger, self._travel = finger.qposadr[0], finger.range[1]
        self.is_robot = robot_geoms(model)
        self._body = functools.cache(lambda name: model.body(name).id)
        self._geom = functools.cache(lambda name: model.geom(name).id)

    # ---- the hand -----------------------------------------------------------------------------

    @property
    def tool(self) -> np.ndarray:
        """(3,) position of the tool frame."""
        return self.data.site_xpos[self._tcp].copy()

    @property
    def tool_matrix(self) -> np.ndarray:
        """(3, 3) rotation of the tool frame: z approaches, the fingers open along y."""
        return self.data.site_xmat[self._tcp].reshape(3, 3).copy()

    @property
    def gripper_width(self) -> float:
        """Measured opening, 0 to 1."""
        return float(np.clip(self.data.qpos[self._finger] / self._travel, 0, 1))

    # ---- bodies -------------------------------------------------------------------------------

    def position(self, body: str) -> np.ndarray:
        """(3,) position of a body's frame."""
        return self.data.xpos[self._body(body)].copy()

    def matrix(self, body: str) -> np.ndarray:
        """(3, 3) rotation of a body's frame."""
        return self.data.xmat[self._body(body)].reshape(3, 3).copy()

    def heading(self, body: str) -> float:
        """Direction of the body's x axis about the vertical."""
        matrix = self.matrix(body)
        return float(np.arctan2(matrix[1, 0], matrix[0, 0]))

    def yaw(self, body: str) -> float:
        """Yaw of a square body within +-45 degrees: the nearest of its four equal directions."""
        matrix = self.matrix(body)
        side = matrix[:2, np.argmax(np.hypot(*matrix[:2]))]  # the most level of its axes
        yaw = np.arctan2(side[1], side[0])
        return float((yaw + np.pi / 4) % (np.pi / 2) - np.pi / 4)

    def speed(self, body: str) -> float:
        """Largest component of the linear velocity of the body's centre of mass, m/s."""
        velocity = np.empty(6)
        mujoco.mj_objectVelocity(
            self.model, self.data, mujoco.mjtObj.mjOBJ_BODY, self._body(body), velocity, 0
        )
        return float(np.abs(velocity[3:]).max())

    def corners(self, body: str) -> np.ndarray:
        """(8 n, 3) corners of the boxes around the body's n geoms, base frame."""
        first, count = self._geoms(self._body(body))
        return np.concatenate([
            self.data.geom_xpos[geom]
            + (_CORNERS * self._extent(geom)) @ self.data.geom_xmat[geom].reshape(3, 3).T
            for geom in range(first, first + count)
        ])

    def bottom(self, body: str) -> float:
        """Height of the body's lowest corner."""
        return float(self.corners(body)[:, 2].min())

    def top(self, body: str) -> float:
        """Height of the body's highest corner."""
        return float(self.corners(body)[:, 2].max())

    def half(self, geom: str) -> np.ndarray:
        """(3,) size of a geom as it is now; half sizes for a box."""
        return self.model.geom_size[self._geom(geom)].copy()

    def joint(self, joint: str) -> float:
        """Value of a hinge (radians) or slide (metres)."""
        return float(self.data.joint(joint).qpos[0])

    def is_free(self, body: str) -> bool:
        """Whether the body moves freely (it has a free joint of its own)."""
        number = self._body(body)
        return bool(
            self.model.body_jntnum[number]
            and self.model.jnt_type[self.model.body_jntadr[number]] == _FREE
        )

    def touching(self, a: str, b: str) -> bool:
        """Whether geoms of the two bodies are in contact."""
        bodies = self.model.geom_bodyid[self.data.contact.geom]
        a, b = self._body(a), self._body(b)
        return bool(np.any((bodies == (a, b)).all(1) | (bodies == (b, a)).all(1)))

    def touched(self, body: str) -> bool:
        """Whether any part of the robot touches the body."""
        pairs = self.data.contact.geom
        bodies = self.model.geom_bodyid[pairs]
        return bool(np.any((bodies == self._body(body)).any(1) & self.is_robot[pairs].any(1)))

    # ---- writing ------------------------------------------------------------------------------

    def put(self, body: str, position: np.ndarray, yaw: float = 0.0) -> None:
        """Place a free, mocap or fixed body; its own x axis turned by `yaw` about the vertical."""
        number = self._body(body)
        rotation = (np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2))
        mocap = self.model.body_mocapid[number]
        if mocap >= 0:
            self.data.mocap_pos[mocap], self.data.mocap_quat[mocap] = position, rotation
        elif self.is_free(body):
            start = self.model.jnt_qposadr[self.model.body_jntadr[number]]
            self.data.qpos[start : start + 7] = (*position, *rotation)
        else:
            self.model.body_pos[number], self.model.body_quat[number] = position, rotation

    def shift(self, body: str, offset: np.ndarray) -> None:
        """Move a free or mocap body by (3,) metres, also in the middle of an episode."""
        number = self._body(body)
        mocap = self.model.body_mocapid[number]
        if mocap >= 0:
            self.data.mocap_pos[mocap] += offset
        else:
            start = self.model.jnt_qposadr[self.model.body_jntadr[number]]
            self.data.qpos[start : start + 3] += offset

    def set_joint(self, joint: str, value: float) -> None:
        """Set a hinge (radians) or slide (metres)."""
        self.data.joint(joint).qpos[0] = value

    def paint(self, geom: str, rgba: tuple[float, ...]) -> None:
        """Give a geom a colour."""
        self.model.geom_rgba[self._geom(geom)] = rgba

    def draw(self, texture: str, picture: np.ndarray) -> None:
        """Put a picture (h, w, 3) uint8 of the texture's size on what carries it, for pictures."""
        self.pictures[texture] = picture

    def reshape(self, geom: str, kind: mujoco.mjtGeom) -> None:
        """Turn a box into a cylinder or back; `resize` has to follow."""
        self.model.geom_type[self._geom(geom)] = kind

    def resize(self, geom: str, size: np.ndarray, position: np.ndarray | None = None) -> None:
        """Give a box or cylinder another size and perhaps another place in its body.

        Everything derived is renewed: bounds for contacts and rays and, for a free body of one
        geom, mass and inertia at the density of the simulator's objects.
        """
        model, number = self.model, self._geom(geom)
        model.geom_size[number, : len(size)] = size
        if position is not None:
            model.geom_pos[number] = position
        extent = self._extent(number)
        model.geom_aabb[number, 3:] = extent
        round_ = model.geom_type[number] == mujoco.mjtGeom.mjGEOM_CYLINDER
        model.geom_rbound[number] = np.linalg.norm(extent[1:] if round_ else extent)
        body = model.geom_bodyid[number]
        if model.body_geomnum[body] == 1 and model.body_dofnum[body] == 6:
            volume = (2 * np.pi if round_ else 8) * extent.prod()
            model.body_mass[body] = mass = DENSITY * volume
            squares = extent**2
            across = (squares[0] / 4 if round_ else squares[1] / 3) + squares[2] / 3
            model.body_inertia[body] = mass * (
                np.array([across, across, squares[0] / 2]) if round_
                else (squares.sum() - squares) / 3
            )
            self.masses_changed = True
        self._fit_bounds(body)

    # ---- inside -------------------------------------------------------------------------------

    def _geoms(self, body: int) -> tuple[int, int]:
        return self.model.body_geomadr[body], self.model.body_geomnum[body]

    def _extent(self, geom: int) -> np.ndarray:
        """(3,) half sizes of the box around a box or cylinder, its own frame."""
        size = self.model.geom_size[geom]
        if self.model.geom_type[geom] == mujoco.mjtGeom.mjGEOM_CYLINDER:
            return size[[0, 0, 1]]
        return size

    def _fit_bounds(self, body: int) -> None:
        """Renew the tree of bounding boxes of a body's geoms (in its inertial frame)."""
        model = self.model
        first, count = model.body_bvhadr[body], model.body_bvhnum[body]
        frame = _matrix(model.body_iquat[body])
        for node in range(first + count - 1, first - 1, -1):  # children come after their parents
            geom = model.bvh_nodeid[node]
            if geom >= 0:
                centre = (model.geom_pos[geom] - model.body_ipos[body]) @ frame
                half = np.abs(frame.T @ _matrix(model.geom_quat[geom])) @ self._extent(geom)
                low, high = centre - half, centre + half
            else:
                boxes = model.bvh_aabb[first + model.bvh_child[node]]
                low = (boxes[:, :3] - boxes[:, 3:]).min(0)
                high = (boxes[:, :3] + boxes[:, 3:]).max(0)
            model.bvh_aabb[node] = [*(low + high) / 2, *(high - low) / 2]


def _matrix(quaternion: np.ndarray) -> np.ndarray:
    matrix = np.empty(9)
    mujoco.mju_quat2Mat(matrix, quaternion)
    return matrix.reshape(3, 3)
