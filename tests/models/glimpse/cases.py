"""What the check asks: golden prompts, controls, and held-out pictures from seeds of its own."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageDraw

from tests.models.glimpse import dialogs, pictures, words
from tests.models.glimpse.asking import Message, user
from tests.models.glimpse.pictures import Picture, draw_text

GREETING = "Hello MLX"
NEAR_MISSES = ("Hello XML", "Hallo MLX", "Hello MAX", "Jelly MLX", "World MLX")
GOLDEN_TEXTS = ((10, (80, 120)), (32, (40, 110)), (40, (20, 100)))
KNOWN_MISS = (24, (50, 110))  # was meant to be golden; the bundled weights say "Hello MIL"
SYSTEM_PROMPTS = ("", "You are a helpful assistant.", "Answer briefly.")
LARGER_PX = tuple(size for size in pictures.TEXT_SIZES_PX if size >= 14)
SIDE_PX = 256

Verdict = Callable[[str], bool]


@dataclass(frozen=True)
class Case:
    """One question with its pictures and what makes an answer right."""

    measure: str
    messages: tuple[Message, ...]
    images: tuple[Image.Image, ...]
    right: Verdict
    expected: str


@dataclass(frozen=True)
class Measure:
    """A row of the table: the share of its cases that must be right, if any must."""

    name: str
    target: float | None


MEASURES = (
    Measure("golden prompts", 1.0),
    Measure("'Hello MLX', 24 px at (50, 110): a known miss", None),
    Measure("near-miss is not 'Hello MLX'", 1.0),
    Measure("near-miss read exactly", None),
    Measure("'Hello MLX' at varied places and sizes", 0.9),
    Measure("single shape, main colours", 0.95),
    Measure("two images, both right", 0.85),
    Measure("words, 10 px", None),
    Measure("words, 14 to 40 px", None),
    Measure("random letters, 10 px", None),
    Measure("random letters, 14 to 40 px", None),
    Measure("image after the text", None),
    Measure("follow-up turn", None),
)


def _exactly(text: str) -> Verdict:
    return lambda answer: answer == text


def _in_order(*parts: str) -> Verdict:
    """All parts, case aside, one after the other."""

    def verdict(answer: str) -> bool:
        place = 0
        for part in parts:
            place = answer.lower().find(part.lower(), place)
            if place < 0:
                return False
            place += len(part)
        return True

    return verdict


def _golden_shape(shape: str) -> Image.Image:
    image = Image.new("RGB", (SIDE_PX, SIDE_PX), "white")
    draw = ImageDraw.Draw(image)
    if shape == "square":
        draw.rectangle([64, 64, 192, 192], fill=(255, 0, 0))
    else:
        draw.ellipse([64, 64, 192, 192], fill=(0, 0, 255))
    return image


def golden() -> Iterator[Case]:
    """The prompts that the project's end-to-end tests send, with and without a system prompt."""
    square, circle = _golden_shape("square"), _golden_shape("circle")
    texts = [draw_text(GREETING, size_px, place) for size_px, place in GOLDEN_TEXTS]
    both_ways = [
        ((square, circle), ("red", "square", "blue", "circle")),
        ((circle, square), ("blue", "circle", "red", "square")),
    ]
    for system in SYSTEM_PROMPTS:
        before = ({"role": "system", "content": system},) if system else ()

        def case(
            question: str,
            images: Sequence[Image.Image],
            right: Verdict,
            expected: str,
            before: tuple[dict[str, Any], ...] = before,
        ) -> Case:
            messages = (*before, user(question, len(images)))
            return Case("golden prompts", messages, tuple(images), right, expected)

        for image, parts in ((square, ("red", "square")), (circle, ("blue", "circle"))):
            yield case(dialogs.DESCRIBE_GOLDEN, [image], _in_order(*parts), " ".join(parts))
        for images, words_in_order in both_ways:
            right = _in_order(*words_in_order)
            yield case(dialogs.COMPARE_GOLDEN, images, right, " ".join(words_in_order))
        for text in texts:
            yield case(dialogs.READ_GOLDEN, [text], _exactly(GREETING), GREETING)
        yield case(dialogs.CAPITAL_GOLDEN, [], _in_order("Paris"), "Paris")
        yield case("Hello!", [], _in_order("Hello"), "Hello")
    yield from _golden_short(square, circle, texts[0])
    yield Case(
        "'Hello MLX', 24 px at (50, 110): a known miss",
        (user(dialogs.READ_GOLDEN, 1),),
        (draw_text(GREETING, *KNOWN_MISS),),
        _exactly(GREETING),
        GREETING,
    )


def _golden_short(square: Image.Image, circle: Image.Image, text: Image.Image) -> Iterator[Case]:
    for question, images, parts in (
        ("Describe this image", (square,), ("red", "square")),
        ("Describe this image.", (circle,), ("blue", "circle")),
        ("What is in this image?", (square,), ("red", "square")),
        ("What color is the shape?", (square,), ("red",)),
        ("What shape do you see?", (circle,), ("circle",)),
        ("What text is in this image?", (text,), (GREETING,)),
        ("Compare these two images", (square, circle), ("red", "square", "blue", "circle")),
        ("Who are you?", (), ("MLX",)),
    ):
        messages = (user(question, len(images)),)
        yield Case("golden prompts", messages, images, _in_order(*parts), " ".join(parts))


def near_misses(sizes_px: Sequence[int]) -> Iterator[Case]:
    """Strings a letter or a word away from the golden one."""
    for text in NEAR_MISSES:
        for size_px in sizes_px:
            place = (80, 120) if size_px == 10 else (20, 110)
            image = draw_text(text, size_px, place)
            messages = (user(dialogs.READ_GOLDEN, 1),)
            yield Case(
                "near-miss is not 'Hello MLX'",
                messages,
                (image,),
                lambda answer: GREETING.lower() not in answer.lower(),
                text,
            )
            yield Case("near-miss read exactly", messages, (image,), _exactly(text), text)


def _place(rng: random.Random, text: str, size_px: int) -> tuple[int, int]:
    box = pictures.font(size_px).getbbox(text)
    return (
        rng.randint(0, max(0, int(SIDE_PX - 2 - box[2]))),
        rng.randint(0, max(0, int(SIDE_PX - 2 - box[3]))),
    )


def _reading(rng: random.Random, measure: str, text: str, size_px: int) -> Case:
    while pictures.font(size_px).getlength(text) > SIDE_PX - 4:
        size_px -= 1
    image = draw_text(text, size_px, _place(rng, text, size_px))
    messages = (user(dialogs.READ_GOLDEN, 1),)
    return Case(measure, messages, (image,), _exactly(text), f"{text} at {size_px} px")


def readings(rng: random.Random, count: int) -> Iterator[Case]:
    """The golden string anywhere, and `count` texts of each kind."""
    for i in range(24):
        size_px = 10 if i % 3 == 0 else rng.choice(pictures.TEXT_SIZES_PX[1:])
        yield _reading(rng, "'Hello MLX' at varied places and sizes", GREETING, size_px)
    for _ in range(count):
        yield _reading(rng, "words, 10 px", words.vocabulary_text(rng), 10)
        text = words.vocabulary_text(rng)
        yield _reading(rng, "words, 14 to 40 px", text, rng.choice(LARGER_PX))
    for _ in range(count // 4):
        yield _reading(rng, "random letters, 10 px", words.random_letters(rng, 7), 10)
        text = words.random_letters(rng, 7)
        yield _reading(rng, "random letters, 14 to 40 px", text, rng.choice(LARGER_PX))


def _main_shape(rng: random.Random) -> Picture:
    return pictures.shape_picture(rng, SIDE_PX, SIDE_PX, main_only=True)


def _named(*shown: Picture) -> tuple[Verdict, str]:
    names = [f"{picture.color} {picture.shape}" for picture in shown]
    return _in_order(*names), ", ".join(names)


def _image(picture: Picture) -> Image.Image:
    return Image.fromarray(picture.pixels)


def shapes(rng: random.Random, count: int) -> Iterator[Case]:
    """`count` single shapes, described."""
    for _ in range(count):
        picture = _main_shape(rng)
        question = rng.choice([dialogs.DESCRIBE_GOLDEN, "Describe this image."])
        messages = (user(question, 1),)
        yield Case("single shape, main colours", messages, (_image(picture),), *_named(picture))


def pairs(rng: random.Random, count: int) -> Iterator[Case]:
    """`count` comparisons of two shapes."""
    for _ in range(count):
        first, second = _main_shape(rng), _main_shape(rng)
        question = rng.choice([dialogs.COMPARE_GOLDEN, "Compare these two images."])
        messages = (user(question, 2),)
        images = (_image(first), _image(second))
        yield Case("two images, both right", messages, images, *_named(first, second))


def arrangements(rng: random.Random, count: int) -> Iterator[Case]:
    """The image after the text, and a second question about an image already shown."""
    for _ in range(count):
        picture = _main_shape(rng)
        after = (user("Describe this image.", 1, images_last=True),)
        yield Case("image after the text", after, (_image(picture),), *_named(picture))
        follow_up = (
            user("What color is the shape?", 1),
            {"role": "assistant", "content": f"The {picture.shape} is {picture.color}."},
            user("What shape is it?"),
        )
        right = _in_order(picture.shape)
        yield Case("follow-up turn", follow_up, (_image(picture),), right, picture.shape)


def quick() -> Iterator[Case]:
    """The golden prompts and the controls."""
    yield from golden()
    yield from near_misses((10, 32))


def full(seed: int) -> Iterator[Case]:
    """Everything; the training's seeds are integers, this one is a string, so none can meet."""
    rng = random.Random(f"glimpse check {seed}")
    yield from golden()
    yield from near_misses((10, 16, 24, 32))
    yield from readings(rng, 100)
    yield from shapes(rng, 200)
    yield from pairs(rng, 100)
    yield from arrangements(rng, 30)
