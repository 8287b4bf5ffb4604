"""Pages full of text and single shapes, labelled patch by patch: what vision learns letters from.

A page carries ten times the characters of a training dialog, so letters are learned here cheaply.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from tests.models.glimpse import pictures, words
from tests.models.glimpse.batches import CELL, PATCH, DenseLabels, Ints, cell_of, dense_labels
from tests.models.glimpse.pictures import Glyph, Picture, Rgb
from tests.models.glimpse.words import CHARACTER_IDS

SIZES = ((64, 64), (64, 64), (64, 128), (48, 96), (128, 128), (128, 128))


@dataclass(frozen=True)
class PageBatch:
    """Pictures and labels of one vision-only step."""

    images: NDArray[np.uint8]  # (N, H, W, 3)
    labels: DenseLabels
    cells: Ints  # (M, 5): image, cell and three character ids


def _line(rng: random.Random, width_px: float, size_px: int) -> str:
    """Words and random letters until they reach past `width_px`."""
    line = ""
    while pictures.font(size_px).getlength(line) < width_px:
        wordlike = rng.random() < 0.5
        line += words.cased_word(rng) if wordlike else words.random_letters(rng, 6)
        line += " "
    return line


def _page_colors(rng: random.Random) -> tuple[str, Rgb, Rgb]:
    """The paper's name, paper and ink."""
    background = "white" if rng.random() < 0.8 else rng.choice(["black", "gray", "yellow", "blue"])
    paper = (255, 255, 255) if background == "white" else pictures.jittered(background, rng)
    if background in ("black", "blue"):
        ink = pictures.jittered("white", rng)
    elif background == "white" and rng.random() < 0.25:
        ink = pictures.jittered(rng.choice(["red", "blue", "green", "purple", "brown"]), rng)
    else:
        ink = (0, 0, 0)
    return background, paper, ink


def page_picture(rng: random.Random, height: int, width: int) -> Picture:
    """A sheet covered with lines of one font size, cut off at its edges."""
    background, paper, ink = _page_colors(rng)
    size_px = pictures.text_size(rng, height)
    image = Image.new("RGB", (width, height), paper)
    draw = ImageDraw.Draw(image)
    glyphs: list[Glyph] = []
    y = rng.randint(-2, 6)
    while y < height - size_px * 0.8:
        x = rng.randint(-3, 10)
        line = _line(rng, width - x, size_px)
        draw.text((x, y), line, fill=ink, font=pictures.font(size_px))
        bottom = y + pictures.font(size_px).getbbox(line)[3]
        glyphs += [
            glyph
            for glyph in pictures.glyphs_of(line, x, y, size_px)
            if bottom <= height + 1 and size_px / 4 < glyph.x < width - size_px / 4
        ]
        y += int(size_px * rng.uniform(1.05, 1.5))
    return Picture(np.asarray(image), "text", background, glyphs=tuple(glyphs))


def _one_line_cells(picture: Picture) -> dict[int, tuple[int, ...]]:
    """The characters of every cell that holds characters of a single line."""
    rows, columns = picture.pixels.shape[0] // CELL, picture.pixels.shape[1] // CELL
    found: dict[int, list[Glyph]] = {}
    for glyph in picture.glyphs:
        found.setdefault(cell_of(glyph.x, glyph.y, rows, columns), []).append(glyph)
    cells = {}
    for cell, glyphs in found.items():
        if len({int(glyph.y) // PATCH for glyph in glyphs}) == 1:
            glyphs.sort(key=lambda glyph: glyph.x)
            ids = [CHARACTER_IDS.get(glyph.character, 0) for glyph in glyphs]
            cells[cell] = tuple(([*ids, 0, 0, 0])[:3])
    return cells


def make(seed: int, patches_per_batch: int) -> PageBatch:
    """A batch of pages and shapes of one size; the same seed gives the same batch."""
    rng = random.Random(seed)
    height, width = rng.choice(SIZES)
    count = max(2, patches_per_batch // ((height // PATCH) * (width // PATCH)))
    page_share = 0.72 if height < 128 else 0.5
    shown: Sequence[Picture] = [
        page_picture(rng, height, width)
        if rng.random() < page_share
        else pictures.shape_picture(rng, height, width)
        for _ in range(count)
    ]
    cells = [
        (i, cell, *ids)
        for i, picture in enumerate(shown)
        for cell, ids in _one_line_cells(picture).items()
    ]
    images = np.stack([picture.pixels for picture in shown])
    return PageBatch(images, dense_labels(shown), np.array(cells, np.int64).reshape(-1, 5))
