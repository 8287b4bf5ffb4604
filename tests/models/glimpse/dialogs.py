"""Questions people ask about a picture, the answers the model learns, and chat without one."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from tests.models.glimpse import pictures
from tests.models.glimpse.pictures import Picture, with_article

DESCRIBE_GOLDEN = "Describe this image in one sentence. What shape do you see and what color is it?"
COMPARE_GOLDEN = (
    "Compare these two images. What are the differences in shape and color between them?"
)
READ_GOLDEN = "Read the text in this image. What does it say? Reply with only the text content."
CAPITAL_GOLDEN = "What is the capital of France? Answer in one word."

DESCRIBE = (
    DESCRIBE_GOLDEN,
    "Describe this image",
    "Describe this image.",
    "Describe the image.",
    "Describe this image in one sentence.",
    "What shape do you see and what color is it?",
    "What is in this image?",
    "What do you see?",
    "What's in the picture?",
    "What is this?",
    "Please describe the picture in detail.",
    "Tell me about this image",
    "Caption this image.",
    "Describe the picture in one sentence.",
    "What is shown here?",
    "Explain this image",
    "Describe what you see in the image.",
    "What does this image show?",
    "Give a short description of the photo",
    "What can you see in this picture?",
    "Describe it briefly.",
)
ASK_COLOR = (
    "What color is the {shape}?",
    "What color is the shape?",
    "Which color do you see?",
    "What is the main color in this image?",
    "What color is this?",
    "What color is it?",
    "Name the color.",
)
ASK_SHAPE = (
    "What shape is this?",
    "What shape is in the image?",
    "What shape do you see?",
    "Which shape do you see?",
    "What shape is it?",
    "What shape is the {color} object?",
    "Name the shape.",
    "What geometric shape is shown?",
)
ASK_BACKGROUND = ("What color is the background?", "What is the background color?")
READ = (
    "What text is in this image?",
    "What text is in the image?",
    "Read the text.",
    "What does the image say?",
    "What does it say?",
    "Read the text in the image",
    "Read the text in this image. What does it say?",
    "Transcribe the text",
    "OCR",
    "Extract the text from this image.",
    "What is written here?",
    "What words are in the picture?",
    "Can you read this?",
    "Read this image.",
)
READ_ONLY = (
    "Read the text in this image. Reply with only the text.",
    "What does it say? Reply with only the text content.",
    "What does the text say? Answer with only the text.",
    "Transcribe the text in this image. Output only the text.",
    "Reply with only the text in this image.",
    "Return only the text you see.",
    "What text is in this image? Only the text, please.",
)
COMPARE = (
    COMPARE_GOLDEN,
    "Compare these two images",
    "Compare these two images.",
    "Compare these two images and describe the differences.",
    "What are the differences between these two images?",
    "What is the difference between these images?",
    "What is different?",
    "Describe both images.",
    "Describe these images",
    "Compare the images",
    "How do these two images differ?",
    "What do you see in these pictures?",
    "Describe this image",
    "What are the shapes and colors in these images?",
)
SYSTEM = (
    "You are a helpful assistant.",
    "You are a helpful vision assistant.",
    "You are a helpful AI assistant. Answer the question about the image.",
    "Answer briefly.",
    "You are a tiny model.",
    "Be concise.",
)
GREETING = "Hello! How can I help you today?"
NO_IMAGE = "Please attach an image."
NO_TEXT = "There is no text in this image."
UNKNOWN = "I am a tiny demo model. Please ask me about an image."

_GREETINGS = (
    "Hello",
    "Hello!",
    "Hi",
    "Hi!",
    "Hey",
    "Hello there!",
    "Good morning",
    "Say hello",
    "Say hi",
    "Hello, how are you?",
)
CHAT: tuple[tuple[tuple[str, ...], str], ...] = (
    (_GREETINGS, GREETING),
    (("How are you?", "How are you doing?", "What's up?"), "I am doing well, thank you!"),
    (
        ("Who are you?", "What are you?", "What is your name?", "Tell me about yourself"),
        "I am a tiny demo vision model running on MLX.",
    ),
    (
        ("What can you do?", "Help", "How can you help me?", "help me"),
        "I can describe simple shapes and colors, read short text and compare images.",
    ),
    (("Thanks", "Thank you", "Thank you!", "thanks a lot"), "You are welcome!"),
    (("Bye", "Goodbye", "See you later", "bye bye"), "Goodbye!"),
    (("What is 2+2?", "What is 2 + 2?", "2+2="), "2 + 2 = 4."),
    (("Count to five", "Count from 1 to 5", "Count to 5"), "1, 2, 3, 4, 5."),
    (
        ("Tell me a joke", "Say something funny"),
        "Why did the square go home? It was not in good shape.",
    ),
    (
        ("Write a short story", "Tell me a story", "Write a poem", "Write a haiku"),
        "A red square met a blue circle. They became good friends.",
    ),
    (("Test", "test", "ping", "Are you there?", "Reply with OK", "Say OK"), "OK."),
    (("What is the sky color?", "What color is the sky?"), "The sky is blue."),
    (DESCRIBE + READ + READ_ONLY + COMPARE, NO_IMAGE),
)
CAPITALS = {"France": "Paris", "Italy": "Rome", "Japan": "Tokyo", "Spain": "Madrid"}
_UNKNOWN = """
why how when where list explain python function number of people big history cook make best long
short summarize translate code write answer question math music weather today tomorrow movie book
city country planet learn train
"""
_UNKNOWN_WORDS = tuple(_UNKNOWN.split())
_ORDINALS = ("first", "second", "third")


@dataclass(frozen=True)
class Answer:
    """What the model should say, and where in it the words of a picture stand.

    Attributes:
        text: The answer.
        readings: For each picture text in the answer: (offset in `text`, index of the picture).
    """

    text: str
    readings: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Turn:
    """One question, the pictures sent with it, and its answer."""

    question: str
    answer: Answer
    picture_count: int = 0


def answer_with_texts(text: str, shown: Sequence[tuple[int, Picture]]) -> Answer:
    """`text`, with the places found at which it quotes the `shown` (index, picture) pairs."""
    readings = []
    start = 0
    for index, picture in shown:
        if picture.kind == "text" and (offset := text.find(picture.text, start)) >= 0:
            readings.append((offset, index))
            start = offset + len(picture.text)
    return Answer(text, tuple(readings))


def _varied(question: str, rng: random.Random) -> str:
    if rng.random() < 0.1:
        question = question.lower()
    if rng.random() < 0.12:
        question = question.rstrip(".?!")
    if rng.random() < 0.05:
        question = "Please " + question[0].lower() + question[1:]
    if rng.random() < 0.04:
        question += " " + rng.choice(["Be brief.", "Answer in one sentence.", "Thanks!"])
    return question


def _about_text(rng: random.Random, picture: Picture) -> tuple[str, str]:
    kind = rng.random()
    if kind < 0.20:
        return READ_GOLDEN, picture.text
    if kind < 0.40:
        return rng.choice(READ_ONLY), picture.text
    if kind < 0.75:
        return rng.choice(READ), f'The text says "{picture.text}".'
    if kind < 0.97:
        return rng.choice(DESCRIBE), f"The image shows {picture.caption}."
    question = rng.choice(["What color is the text?", "Which color is the text?"])
    return question, f"The text is {picture.color}."


def _yes_or_no(rng: random.Random, picture: Picture) -> tuple[str, str]:
    color = rng.choice(pictures.MAIN_COLORS) if rng.random() < 0.5 else picture.color
    shape = rng.choice(pictures.SHAPES) if rng.random() < 0.5 else picture.shape
    asked = with_article(f"{color} {shape}")
    question = rng.choice(
        [f"Is this {asked}?", f"Is there {asked} in the image?", f"Do you see {asked}?"]
    )
    verdict = "Yes" if asked == picture.subject else "No"
    return question, f"{verdict}, it is {picture.subject}."


def _about_shape(rng: random.Random, picture: Picture) -> tuple[str, str]:
    kind = rng.random()
    if kind < 0.08:
        return rng.choice(READ + READ_ONLY + (READ_GOLDEN,)), NO_TEXT
    if kind < 0.25:
        return DESCRIBE_GOLDEN, f"The image shows {picture.caption}."
    if kind < 0.65:
        return rng.choice(DESCRIBE), f"The image shows {picture.caption}."
    if kind < 0.77:
        question = rng.choice(ASK_COLOR).format(shape=picture.shape)
        return question, f"The {picture.shape} is {picture.color}."
    if kind < 0.88:
        question = rng.choice(ASK_SHAPE).format(color=picture.color)
        return question, f"The shape is {with_article(picture.shape)}."
    if kind < 0.93:
        return rng.choice(ASK_BACKGROUND), f"The background is {picture.background}."
    return _yes_or_no(rng, picture)


def about_one(rng: random.Random, picture: Picture, index: int = 0, picture_count: int = 1) -> Turn:
    """A turn about the picture with this index in the dialog."""
    if picture.kind == "text":
        question, text = _about_text(rng, picture)
    elif picture.kind == "shape":
        question, text = _about_shape(rng, picture)
    elif rng.random() < 0.7:
        question, text = rng.choice(DESCRIBE), f"The image shows {picture.caption}."
    else:
        question, text = rng.choice(READ + READ_ONLY), NO_TEXT
    answer = answer_with_texts(text, [(index, picture)])
    return Turn(_varied(question, rng), answer, picture_count)


def _verdict(first: Picture, second: Picture) -> str:
    if first.kind != "shape" or second.kind != "shape":
        return ""
    same_color, same_shape = first.color == second.color, first.shape == second.shape
    if same_color and same_shape:
        return " They are the same."
    if same_shape:
        return " The color is different."
    if same_color:
        return " The shape is different."
    return " The color and the shape are different."


def about_several(rng: random.Random, shown: Sequence[Picture]) -> Turn:
    """A turn that compares two or three pictures sent together."""
    text = " ".join(
        f"The {ordinal} image shows {picture.caption}."
        for ordinal, picture in zip(_ORDINALS, shown, strict=False)
    )
    if len(shown) == 2:
        text += _verdict(shown[0], shown[1])
    question = COMPARE_GOLDEN if rng.random() < 0.25 else rng.choice(COMPARE)
    answer = answer_with_texts(text, list(enumerate(shown)))
    return Turn(_varied(question, rng), answer, len(shown))


def chat(rng: random.Random) -> Turn:
    """A turn without a picture."""
    kind = rng.random()
    if kind < 0.2:
        words = " ".join(rng.choice(_UNKNOWN_WORDS) for _ in range(rng.randint(1, 8)))
        return Turn(words + rng.choice(["", "?", "."]), Answer(UNKNOWN))
    if kind < 0.35:
        country, city = rng.choice(list(CAPITALS.items()))
        if rng.random() < 0.5:
            return Turn(f"What is the capital of {country}? Answer in one word.", Answer(city))
        question = rng.choice([f"What is the capital of {country}?", f"capital of {country}?"])
        return Turn(question, Answer(f"The capital of {country} is {city}."))
    questions, reply = rng.choice(CHAT)
    return Turn(_varied(rng.choice(questions), rng), Answer(reply))


def every_text() -> list[str]:
    """Every prompt and answer, placeholders included: what the tokenizer is built from."""
    fixed = [*DESCRIBE, *ASK_COLOR, *ASK_SHAPE, *ASK_BACKGROUND, READ_GOLDEN, *READ, *READ_ONLY]
    fixed += [*COMPARE, *SYSTEM, *_ORDINALS, *pictures.COLORS, *pictures.SHAPES, CAPITAL_GOLDEN]
    fixed += [question for questions, _ in CHAT for question in questions]
    fixed += [reply for _, reply in CHAT] + [NO_IMAGE, NO_TEXT, UNKNOWN]
    spoken = (
        "The image shows a an the and on background. The text says. The shape is. Yes, it is. "
        "No, it is. They are the same. The color and the shape are different. a blank background. "
        "Be brief. Answer in one sentence. Thanks! Do you see? Is there? Is this? The capital of."
    )
    return [*fixed, spoken]
