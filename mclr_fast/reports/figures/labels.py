"""Words beside the points of a chart, put where they cover neither points nor each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NOTE = "note"  # the gid of such a word
DISTANCES = (5.0, 11.0, 18.0)  # points between a mark's middle and the nearer edge of its word
ANGLES = np.deg2rad([90, 45, 0, 315, 270, 225, 180, 135])  # above first
MARK, PATH, OUTSIDE = 8.0, 1.0, 50.0  # what it costs to cover a mark or a word, some of a line, the edge
MARGIN = 3.0  # pixels that a word keeps from marks


def keep_clear(fig: Figure, ax: Axes) -> None:
    """Move each annotation with gid `NOTE` round its point to the nearest place where it covers least."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    words = [text for text in ax.texts if text.get_gid() == NOTE]
    if not words:
        return
    renderer = FigureCanvasAgg(fig).get_renderer()
    for word in words:
        word.set_in_layout(False)
    fig.draw_without_rendering()  # the axes have their places now
    marks, paths = _covered(ax)
    pixels = fig.dpi / 72  # a point
    taken: list[np.ndarray] = []
    for word in words:
        at = ax.transData.transform(word.xy)
        extent = word.get_window_extent(renderer)
        half = np.array([extent.width, extent.height]) / 2
        boxes = [_box(at, half, angle, distance * pixels) for distance in DISTANCES for angle in ANGLES]
        costs = [_cost(box, marks, paths, taken, ax) + 0.05 * place for place, box in enumerate(boxes)]
        best = boxes[int(np.argmin(costs))]
        taken.append(best)
        word.set_position(tuple((best.mean(axis=0) - at) / pixels))


def _covered(ax: Axes) -> tuple[np.ndarray, np.ndarray]:
    """The pixels [n,2] of all marks, and of points along the lines between them."""
    marks, paths = [np.empty((0, 2))], [np.empty((0, 2))]
    for line in ax.lines:
        data = np.column_stack([np.asarray(part, float) for part in line.get_data()])
        at = line.get_transform().transform(data)
        marks.append(at)
        if line.get_linestyle() != "None":
            steps = np.linspace(0, 1, 20)[:, None, None]
            paths.append((at[:-1] * (1 - steps) + at[1:] * steps).reshape(-1, 2))
    return np.concatenate(marks), np.concatenate(paths)


def _box(at: np.ndarray, half: np.ndarray, angle: float, distance: float) -> np.ndarray:
    """Lower left and upper right corner [2,2] of a word in this direction from its point."""
    direction = np.array([np.cos(angle), np.sin(angle)])
    middle = at + direction * (distance + half * np.abs(direction))
    return np.stack([middle - half, middle + half])


def _cost(box: np.ndarray, marks: np.ndarray, paths: np.ndarray, taken: list[np.ndarray], ax: Axes) -> float:
    """What a word in this box would cover."""
    low, high = box

    def inside(found: np.ndarray, margin: float) -> int:
        return int(((found > low - margin) & (found < high + margin)).all(axis=1).sum())

    words = sum(bool((low < other[1]).all() and (other[0] < high).all()) for other in taken)
    bounds = ax.get_window_extent()
    outside = low[0] < bounds.x0 or low[1] < bounds.y0 or high[0] > bounds.x1 or high[1] > bounds.y1
    return MARK * (inside(marks, MARGIN) + words) + PATH * (inside(paths, 0) > 0) + OUTSIDE * outside
