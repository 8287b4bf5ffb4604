"""Synthetic pictures: one flat shape, a short text, or nothing, drawn with Pillow alone."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from tests.models.glimpse import words

Rgb = tuple[int, int, int]
Pixels = NDArray[np.uint8]

COLORS: dict[str, tuple[Rgb, ...]] = {
    "red": ((255, 0, 0), (220, 20, 30), (200, 0, 0)),
    "green": ((0, 128, 0), (0, 200, 0), (0, 255, 0), (40, 160, 60)),
    "blue": ((0, 0, 255), (30, 60, 220), (0, 0, 180), (30, 100, 255)),
    "yellow": ((255, 255, 0), (250, 230, 20)),
    "black": ((0, 0, 0), (15, 15, 15)),
    "purple": ((128, 0, 128), (120, 30, 180), (150, 40, 160)),
    "orange": ((255, 165, 0), (255, 140, 0), (250, 130, 20)),
    "pink": ((255, 192, 203), (255, 130, 190)),
    "gray": ((128, 128, 128), (150, 150, 150)),
    "brown": ((120, 70, 20), (139, 69, 19)),
    "cyan": ((0, 255, 255), (0, 220, 220)),
    "white": ((255, 255, 255),),
}
MAIN_COLORS = ("red", "green", "blue", "yellow", "black", "purple", "orange")
SHAPES = ("square", "circle", "triangle", "star", "rectangle", "diamond", "cross")
MAIN_SHAPES = SHAPES[:4]

TEXT_SIZES_PX = (10, 12, 14, 16, 18, 20, 24, 28, 32, 36, 40)

# Pairs that nobody could tell apart once their values are jittered.
_ALIKE_NAMES = """
orange/red orange/yellow pink/white pink/purple gray/white brown/red brown/orange cyan/white
cyan/blue gray/black white/yellow brown/black pink/red gray/brown green/cyan
"""
_ALIKE = {frozenset(pair.split("/")) for pair in _ALIKE_NAMES.split()}
_TEXT_COLORS = ("red", "blue", "green", "purple", "black", "white", "brown")


@dataclass(frozen=True)
class Glyph:
    """Where one character of a text was drawn: its centre in pixels, its place in the text."""

    x: float
    y: float
    character: str
    index: int


@dataclass(frozen=True)
class Picture:
    """A picture of shape (H, W, 3) and everything that can be said about it."""

    pixels: Pixels
    kind: Literal["shape", "text", "blank"]
    background: str
    color: str = ""
    shape: str = ""
    text: str = ""
    glyphs: tuple[Glyph, ...] = ()
    center: tuple[float, float] = (0.0, 0.0)
    radius: float = 0.0

    @property
    def subject(self) -> str:
        """What the picture shows, without its background: `a red square`."""
        if self.kind == "text":
            return f'the text "{self.text}"'
        return with_article(f"{self.color} {self.shape}")

    @property
    def caption(self) -> str:
        """What the picture shows: `a red square on a white background`."""
        if self.kind == "blank":
            return f"a blank {self.background} background"
        return f"{self.subject} on {with_article(self.background)} background"


def with_article(noun: str) -> str:
    """`noun` with `a` or `an` before it."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


@lru_cache(maxsize=64)
def font(size_px: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's bundled font; 10 px is the size it has by default."""
    return ImageFont.load_default(size_px)


def distinct(one: str, other: str) -> bool:
    """Whether two colours can be told apart in a picture."""
    return one != other and frozenset((one, other)) not in _ALIKE


def jittered(color: str, rng: random.Random) -> Rgb:
    """A value that still deserves the name `color`."""
    base = rng.choice(COLORS[color])
    if rng.random() < 0.4:
        return base
    if color == "white":
        shifts = [-rng.uniform(0, 12) for _ in base]
    elif color == "gray":
        shade = rng.uniform(-18, 18)
        shifts = [shade + rng.uniform(-4, 4) for _ in base]
    else:
        shifts = [rng.uniform(-18, 18) for _ in base]
    red, green, blue = (
        max(0, min(255, round(value + shift))) for value, shift in zip(base, shifts, strict=True)
    )
    return red, green, blue


def _outline_points(
    shape: str, x: float, y: float, radius: float, turn: float
) -> list[tuple[float, float]]:
    """The corners of a polygon shape; `turn` is in radians."""
    if shape == "diamond":
        return [(x, y - radius), (x + 0.75 * radius, y), (x, y + radius), (x - 0.75 * radius, y)]
    if shape == "cross":
        arm = radius * 0.33
        steps = [(-1, -3), (1, -3), (1, -1), (3, -1), (3, 1), (1, 1)]
        steps += [(-a, -b) for a, b in steps]
        return [(x + _arm(a, arm, radius), y + _arm(b, arm, radius)) for a, b in steps]
    count, inner = (10, 0.42) if shape == "star" else (3, 1.0)
    points = []
    for i in range(count):
        reach = radius if i % 2 == 0 else radius * inner
        angle = turn - math.pi / 2 + 2 * math.pi * i / count
        points.append((x + reach * math.cos(angle), y + reach * math.sin(angle)))
    return points


def _arm(step: int, arm: float, radius: float) -> float:
    return math.copysign(radius if abs(step) == 3 else arm, step)


def _draw_shape(
    draw: ImageDraw.ImageDraw,
    shape: str,
    box: tuple[float, float, float],
    fill: Rgb,
    outline_px: int,
    rng: random.Random,
) -> None:
    x, y, radius = box
    edge = (0, 0, 0) if outline_px else None
    if shape in ("square", "rectangle"):
        half_width = half_height = radius * 0.85
        if shape == "rectangle":
            half_width, half_height = radius, radius / rng.uniform(1.6, 2.4)
            if rng.random() < 0.35:
                half_width, half_height = half_height, half_width
        corners = (x - half_width, y - half_height, x + half_width, y + half_height)
        draw.rectangle(corners, fill=fill, outline=edge, width=max(1, outline_px))
    elif shape == "circle":
        reach = radius * 0.95
        corners = (x - reach, y - reach, x + reach, y + reach)
        draw.ellipse(corners, fill=fill, outline=edge, width=max(1, outline_px))
    else:
        turn = rng.uniform(-0.2, 0.2) if rng.random() < 0.3 else 0.0
        if shape == "triangle" and rng.random() < 0.15:
            turn += math.pi
        points = _outline_points(shape, x, y, radius, turn)
        draw.polygon(points, fill=fill, outline=edge, width=max(1, outline_px))


def _aligned_place(rng: random.Random, height: int, width: int) -> tuple[float, float, float]:
    """A place whose square has its edges on multiples of 32 px.

    Then a window of the vision tower may show one flat colour, which chance alone hardly draws.
    """
    half = 32 * rng.randint(1, min(height, width) // 64 - 1)
    x = half + 32 * rng.randint(0, (width - 2 * half) // 32)
    y = half + 32 * rng.randint(0, (height - 2 * half) // 32)
    return x, y, half / 0.85


def shape_picture(
    rng: random.Random, height: int, width: int, *, main_only: bool = False
) -> Picture:
    """One filled shape on a plain background; `main_only` keeps to the main colours and shapes."""
    background = "white"
    if rng.random() > 0.82:
        background = rng.choice(["black", "gray", "white", "blue", "green", "yellow", "red"])
    choices = MAIN_COLORS if main_only or rng.random() < 0.88 else tuple(COLORS)
    color = rng.choice([c for c in choices if distinct(c, background)])
    shape = rng.choice(MAIN_SHAPES if main_only or rng.random() < 0.65 else SHAPES)
    radius = rng.uniform(max(11, 0.14 * min(height, width)), 0.49 * min(height, width))
    x, y = rng.uniform(radius, width - radius), rng.uniform(radius, height - radius)
    if rng.random() < 0.3:
        x, y = width / 2, height / 2
    if min(height, width) >= 128 and rng.random() < 0.2:
        x, y, radius = _aligned_place(rng, height, width)
    scale = 2 if rng.random() < 0.25 else 1  # drawn double and shrunk: soft edges
    if scale == 1 and rng.random() < 0.5:
        x, y, radius = round(x), round(y), round(radius)
    outlined = distinct(color, "black") and background != "black" and rng.random() < 0.08
    plain_white = background == "white" and rng.random() < 0.85
    canvas = (255, 255, 255) if plain_white else jittered(background, rng)
    image = Image.new("RGB", (width * scale, height * scale), canvas)
    _draw_shape(
        ImageDraw.Draw(image),
        shape,
        (x * scale, y * scale, radius * scale),
        jittered(color, rng),
        rng.randint(1, 2) * scale if outlined else 0,
        rng,
    )
    if scale == 2:
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    return Picture(
        np.asarray(image), "shape", background, color, shape, center=(x, y), radius=radius
    )


def glyphs_of(text: str, x: float, y: float, size_px: int) -> tuple[Glyph, ...]:
    """Where Pillow puts each visible character of `text` drawn at (x, y)."""
    face = font(size_px)
    box = face.getbbox(text)
    middle = y + (box[1] + box[3]) / 2
    ends = [face.getlength(text[:i]) for i in range(len(text) + 1)]
    return tuple(
        Glyph(x + (ends[i] + ends[i + 1]) / 2, middle, character, i)
        for i, character in enumerate(text)
        if character != " "
    )


def draw_text(
    text: str,
    size_px: int,
    place: tuple[int, int],
    canvas: tuple[int, int] = (256, 256),
    ink: Rgb = (0, 0, 0),
    paper: Rgb = (255, 255, 255),
) -> Image.Image:
    """`text` at `place` (x, y) on a sheet of `canvas` (width, height) pixels."""
    image = Image.new("RGB", canvas, paper)
    ImageDraw.Draw(image).text(place, text, fill=ink, font=font(size_px))
    return image


def text_size(rng: random.Random, size_max_px: int) -> int:
    """One of the font sizes that the model learns; the default size comes up most."""
    if rng.random() < 0.4:
        return 10
    return rng.choice([size for size in TEXT_SIZES_PX if size <= size_max_px])


def _fitting_text(rng: random.Random, height: int, width: int) -> tuple[str, int]:
    """A text and a font size in pixels that fit the canvas together."""
    for _ in range(60):
        size_px = text_size(rng, int(height * 0.9))
        length_max = min(words.TEXT_LENGTH_MAX, max(2, int(width / (0.52 * size_px))))
        text = words.training_text(rng, length_max)
        box = font(size_px).getbbox(text)
        if box[2] + 2 <= width and box[3] + 2 <= height:
            return text, size_px
    return "A", 10


def text_picture(rng: random.Random, height: int, width: int) -> Picture:
    """One line of text anywhere on the canvas."""
    background = "white" if rng.random() < 0.94 else rng.choice(["black", "gray", "yellow", "blue"])
    color = "black"
    if background in ("black", "blue") or rng.random() < 0.1:
        color = rng.choice([c for c in _TEXT_COLORS if distinct(c, background)])
    text, size_px = _fitting_text(rng, height, width)
    box = font(size_px).getbbox(text)
    x, y = rng.randint(0, int(width - box[2] - 1)), rng.randint(0, int(height - box[3] - 1))
    if rng.random() < 0.2:
        x, y = int(width - box[2]) // 2, int(height - box[3]) // 2
    plain = background == "white" and rng.random() < 0.9
    paper = (255, 255, 255) if plain else jittered(background, rng)
    ink = (0, 0, 0) if color == "black" and rng.random() < 0.9 else jittered(color, rng)
    image = draw_text(text, size_px, (x, y), (width, height), ink, paper)
    glyphs = glyphs_of(text, x, y, size_px)
    return Picture(np.asarray(image), "text", background, color, text=text, glyphs=glyphs)


def blank_picture(rng: random.Random, height: int, width: int) -> Picture:
    """A plain sheet."""
    background = rng.choice(tuple(COLORS)) if rng.random() < 0.5 else "white"
    image = Image.new("RGB", (width, height), jittered(background, rng))
    return Picture(np.asarray(image), "blank", background)


def any_picture(rng: random.Random, height: int, width: int, text_share: float) -> Picture:
    """A training picture, now and then with noise; `text_share` of them hold text."""
    kind = rng.random()
    if kind < 0.02:
        picture = blank_picture(rng, height, width)
    elif kind < 0.02 + 0.98 * text_share:
        picture = text_picture(rng, height, width)
    else:
        picture = shape_picture(rng, height, width)
    if rng.random() > 0.05:
        return picture
    noise = np.random.default_rng(rng.getrandbits(32)).normal(
        0, rng.uniform(1, 7), picture.pixels.shape
    )
    noisy = np.clip(picture.pixels + noise, 0, 255).astype(np.uint8)
    return Picture(**{**picture.__dict__, "pixels": noisy})
