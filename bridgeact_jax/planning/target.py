"""Where a thing has gone that was seen before: a horizontal shift of its points."""

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

NEAR = 0.055  # metres from a place within which a thing is meant
REACH = 0.08  # metres from the place of those of its points that are looked for
LINK = 0.012  # metres between neighbouring points of one thing
FEWEST = 12  # points
CELL = 0.008  # metres of the grid
FAR, STEP = 0.12, 0.008  # metres, largest shift looked for and steps of it
MOVED = 0.022  # metres from which on a thing counts as moved
CLEARLY = 0.2  # by how much more of the thing has to be found there than where it was
FARTHER = 1.5  # share of the thing that a metre more of shift must explain
FOUND = 0.6  # share of the thing that has to be found
SURE, SURELY = 0.85, 0.3  # the same two shares, to be sure of it


class Target:
    """The thing at a place of a plan.

    Args:
      place: (3,) metres, where the hand is to meet it.
      things: (M, 3) metres, the points of things when the plan was made.
    """

    def __init__(self, place: np.ndarray, things: np.ndarray):
        self.place = np.asarray(place, float)
        self._points = _thing_at(self.place, things)

    def shift(self, things: np.ndarray) -> tuple[np.ndarray | None, bool]:
        """(2,) metres by which the thing has moved among `things` (M, 3), and whether that is sure.

        None for a thing that has not moved, as far as one sees.

        Of all shifts the one counts at which most of the thing is found again, and only if that is
        clearly more than where it was: what hides a part of it does not move it.
        """
        if len(self._points) < FEWEST:
            return None, False
        shifts = np.arange(-FAR, FAR + STEP / 2, STEP)
        shifts = np.stack(np.meshgrid(shifts, shifts), axis=-1).reshape(-1, 2)
        length = np.linalg.norm(shifts, axis=1)
        found = self._found(things, shifts)
        best = np.argmax(found - FARTHER * length)
        here = found[np.argmin(length)]
        more = found[best] - here
        if length[best] < MOVED or found[best] < FOUND or more < CLEARLY:
            return None, False
        return shifts[best], bool(found[best] >= SURE and more >= SURELY)

    def _found(self, things: np.ndarray, shifts: np.ndarray) -> np.ndarray:
        """(S,) share of the points that have a point of `things` next to them after each shift."""
        low = self._points.min(axis=0) - FAR - 2 * CELL
        size = np.ceil((self._points.max(axis=0) + FAR + 2 * CELL - low) / CELL).astype(int) + 1
        grid = np.zeros(size, bool)
        cells = np.floor((things - low) / CELL).astype(int)
        cells = cells[np.all((cells >= 1) & (cells < size - 1), axis=1)]
        for axis, by in ((0, 0), (0, 1), (0, -1), (1, 1), (1, -1), (2, 1), (2, -1)):
            moved = cells.copy()
            moved[:, axis] += by
            grid[tuple(moved.T)] = True
        points = self._points[None] + np.pad(shifts, ((0, 0), (0, 1)))[:, None]
        return grid[tuple(np.moveaxis(np.floor((points - low) / CELL).astype(int), -1, 0))].mean(1)


def _thing_at(place: np.ndarray, things: np.ndarray) -> np.ndarray:
    """(n, 3) the points near a place that hang together with the nearest one; none if it is far."""
    if not len(things):
        return things
    distance = np.linalg.norm(things - place, axis=1)
    if distance.min() > NEAR:
        return things[:0]
    around = things[distance < REACH]
    pairs = cKDTree(around).query_pairs(LINK, output_type="ndarray")
    links = coo_array((np.ones(len(pairs)), tuple(pairs.T)), shape=(len(around),) * 2)
    part = connected_components(links)[1]
    nearest = np.argmin(np.linalg.norm(around - place, axis=1))
    return around[part == part[nearest]]
