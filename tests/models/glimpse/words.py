"""The closed vocabulary that the model is trained to read, and texts drawn from it."""

from __future__ import annotations

import random

UPPER = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
LOWER = UPPER.lower()
DIGITS = "0123456789"
MARKS = "!?.-"
CHARACTERS = UPPER + LOWER + DIGITS + MARKS
CHARACTER_IDS = {character: i + 1 for i, character in enumerate(CHARACTERS)}  # 0 is "none"
CHARACTER_CLASSES = len(CHARACTERS) + 1

TEXT_LENGTH_MAX = 14

# Pairs of these differ by a letter or two, so no part of a text can be guessed from the rest.
NEAR_FIRST = ("Hello", "Hallo", "Hullo", "Jelly", "Yellow", "World", "Hell", "Help", "Cello")
NEAR_SECOND = ("MLX", "XML", "MAX", "MIX", "Max", "MLS", "MLK", "NLX", "LMX", "AMX", "World")

_WORDS = """
hello hallo hullo jelly yellow world word hell help cello mlx xml max mix mls mlk nlx lmx amx
text image test demo apple model server red blue green cat dog sun moon star tree house car book
open close yes no stop go start end left right up down in out on off one two three four five six
seven eight nine ten zero python code data token vision fast slow big small hot cold day night
good bad new old love like time work play read write ocr gpu cpu ram mac metal chip swift rust
java linux error ok done fail pass true false null main user admin login name page menu file edit
view load save run exit next back home search send sale free shop price total date north south
east west water fire earth wind rain snow king queen jack ace quick brown fox jumps over lazy
sphinx quartz judge vow hi hey bye thanks welcome please street road city park lake river hill
sky space rocket robot alpha beta gamma delta music video photo audio paper pen desk lamp door
key lock safe bank coin gold silver iron zinc milk tea coffee sugar
"""
WORDS = tuple(sorted(set(_WORDS.split())))


def cased_word(rng: random.Random) -> str:
    """A word of the vocabulary in lower case, capitalised or in capitals."""
    word = rng.choice(WORDS)
    style = rng.random()
    if style < 0.35:
        return word.upper()
    return word.capitalize() if style < 0.75 else word


def random_letters(rng: random.Random, length_max: int) -> str:
    """A string of letters and digits that is no word: only reading can get it right."""
    length = rng.randint(min(2, length_max), min(7, length_max))
    style = rng.random()
    alphabet = UPPER if style < 0.35 else LOWER if style < 0.6 else UPPER + LOWER + DIGITS
    letters = "".join(rng.choice(alphabet) for _ in range(length))
    return letters.capitalize() if style > 0.8 else letters


def vocabulary_text(rng: random.Random, length_max: int = TEXT_LENGTH_MAX) -> str:
    """One or two words of the vocabulary, at most `length_max` characters."""
    for _ in range(50):
        count = 2 if length_max > 6 and rng.random() < 0.55 else 1
        text = " ".join(cased_word(rng) for _ in range(count))
        if len(text) <= length_max:
            return text
    return random_letters(rng, length_max)


def near_miss_text(rng: random.Random) -> str:
    """A pair of the near-miss words."""
    return f"{rng.choice(NEAR_FIRST)} {rng.choice(NEAR_SECOND)}"


def training_text(rng: random.Random, length_max: int) -> str:
    """What one training picture says: words, near-misses, digits or random letters."""
    kind = rng.random()
    if kind < 0.20 and length_max >= 12:
        return near_miss_text(rng)
    if kind < 0.88:
        return vocabulary_text(rng, length_max)
    if kind < 0.90:
        return "".join(rng.choice(DIGITS) for _ in range(rng.randint(1, min(5, length_max))))
    text = random_letters(rng, length_max)
    if len(text) + 3 <= length_max and rng.random() < 0.3:
        text += " " + random_letters(rng, length_max - len(text) - 1)
    if len(text) < length_max and rng.random() < 0.08:
        text += rng.choice(MARKS)
    return text
