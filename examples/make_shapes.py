"""Draws a small data set of one's own, without a download: coloured shapes in folders, one a class.

    python examples/make_shapes.py shapes/

Every image is of its own seed: the shape's place, size, turn and colour, and the background's shade are drawn
at random, so that a class is a shape in all its looks. Classes: circle, square, star.
"""

from __future__ import annotations

import argparse
import math
import random
from pathlib import Path

from PIL import Image, ImageDraw

CLASSES = ("circle", "square", "star")
FINER = 8  # drawn so many times as large, and made smaller: smooth edges


def draw(kind: str, side: int, seed: int) -> Image.Image:
    """One image of side x side pixels, the same for a seed everywhere."""
    drawn = random.Random(f"{kind} {seed}")
    large = side * FINER
    shade = drawn.randint(200, 255)
    image = Image.new("RGB", (large, large), (shade, shade, shade))
    color = tuple(round(255 * value) for value in _rgb(drawn.random()))
    radius = drawn.uniform(0.26, 0.38) * large
    x, y = (drawn.uniform(radius, large - radius) for _ in range(2))
    turn = drawn.uniform(0, 2 * math.pi)
    ImageDraw.Draw(image).polygon(_outline(kind, x, y, radius, turn), fill=color)
    return image.resize((side, side), Image.Resampling.BOX)


def _outline(kind: str, x: float, y: float, radius: float, turn: float) -> list[tuple[float, float]]:
    """Corners: a circle has 64 of them, a star ten, every other one further in."""
    corners = {"circle": 64, "square": 4, "star": 10}[kind]
    reach = [radius * (0.45 if kind == "star" and i % 2 else 1) for i in range(corners)]
    angles = [turn + 2 * math.pi * i / corners for i in range(corners)]
    return [(x + r * math.cos(a), y + r * math.sin(a)) for r, a in zip(reach, angles, strict=True)]


def _rgb(hue: float) -> tuple[float, float, float]:
    """A strong colour of that hue."""
    return tuple(0.15 + 0.7 * max(0.0, min(1.0, abs((hue * 6 + k) % 6 - 3) - 1)) for k in (0, 4, 2))


def main(arguments: list[str] | None = None) -> None:
    """Write `count` images of every class."""
    options = argparse.ArgumentParser(description="Draw coloured shapes in folders, one a class.")
    options.add_argument("folder", type=Path, help="where to write; a folder of every class is made in it")
    options.add_argument("--count", type=int, default=150, help="images of every class")
    options.add_argument("--side", type=int, default=32, help="of an image, in pixels")
    options.add_argument("--seed", type=int, default=0, help="of the first image of every class")
    asked = options.parse_args(arguments)
    for kind in CLASSES:
        (asked.folder / kind).mkdir(parents=True, exist_ok=True)
        for i in range(asked.count):
            name = asked.folder / kind / f"{i:04d}.png"
            draw(kind, asked.side, asked.seed + i).save(name)
    print(f"{asked.count * len(CLASSES)} images of {asked.side}x{asked.side} in {asked.folder}")


if __name__ == "__main__":
    main()
