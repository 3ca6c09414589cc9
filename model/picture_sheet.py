"""Pictures in a grid, each with lines of text below it and each column with a heading: how results are shown."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from asmgen.sheets import write

TILE = 224
GAP = 6
LINE = 17


class Cell(NamedTuple):
    """A picture of a sheet and the lines of text below it.

    Attributes
    ----------
    picture : Image.Image
        At most `TILE` wide.
    lines : tuple[str, ...]
        Of each the last 34 characters are written.
    """

    picture: Image.Image
    lines: tuple[str, ...] = ()


def picture_sheet(headings: Sequence[str], rows: Sequence[Sequence[Cell]]) -> Image.Image:
    """Return cells in a grid with a heading over each column, RGB."""
    wrapped = [textwrap.wrap(heading, TILE // 8) for heading in headings]
    heights = [max(cell.picture.height + LINE * len(cell.lines) for cell in row) + GAP for row in rows]
    top = GAP + LINE * max(map(len, wrapped))
    sheet = Image.new("RGB", (GAP + len(headings) * (TILE + GAP), top + sum(heights)), "white")

    def write_lines(lines: Sequence[str], column: int, below: int):
        for place, line in enumerate(lines):
            middle = GAP + column * (TILE + GAP) + TILE // 2
            write(sheet, (middle, below + LINE * place + LINE // 2), line[-34:], 13, "mm")

    for column, lines in enumerate(wrapped):
        write_lines(lines, column, GAP // 2)
    for row, height in zip(rows, heights):
        for column, cell in enumerate(row):
            sheet.paste(cell.picture, (GAP + column * (TILE + GAP), top))
            write_lines(cell.lines, column, top + cell.picture.height)
        top += height
    return sheet


def pixels_of(values: torch.Tensor) -> Image.Image:
    """Return a (3, H, W) image or map in [0, 1] as a picture."""
    return Image.fromarray((values.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).contiguous().numpy())


def tile_of(values: torch.Tensor) -> Image.Image:
    """Return a (3, S, S) image or map in [0, 1] as a picture of side `TILE`."""
    return pixels_of(values).resize((TILE, TILE), Image.Resampling.BICUBIC)


def above(upper: Image.Image, lower: Image.Image) -> Image.Image:
    """Return two pictures, one below the other."""
    both = Image.new("RGB", (upper.width, upper.height + GAP + lower.height), "white")
    both.paste(upper, (0, 0))
    both.paste(lower, (0, upper.height + GAP))
    return both


def close_up(values: torch.Tensor, points: np.ndarray) -> Image.Image:
    """Return the square about some (N, 2) points, pixels, of a (3, S, S) image as a tile; black beyond its border."""
    low, high = points.min(0), points.max(0)
    middle, half = (low + high) / 2 + 0.5, 0.6 * (high - low).max()
    box = (*(middle - half), *(middle + half))
    return pixels_of(values).transform((TILE, TILE), Image.Transform.EXTENT, box, Image.Resampling.BICUBIC)
