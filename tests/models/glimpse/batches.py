"""Training batches: dialogs about fresh pictures, as token ids, positions and dense labels."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from tests.models.glimpse import dialogs, pictures
from tests.models.glimpse.dialogs import Turn
from tests.models.glimpse.pictures import Picture
from tests.models.glimpse.tokenizer import END_OF_TURN, IMAGE, IMAGE_SLOT, SPACE
from tests.models.glimpse.words import CHARACTER_IDS

Ints = NDArray[np.int64]
CELL = 16  # pixels a side of one image token
PATCH = 8
ORDINALS = 16
NO_LABEL = -100

SMALL = ((32, 64), (32, 128), (48, 96), (64, 64), (64, 128), (48, 128), (64, 96))
MIDDLE = ((64, 192), (128, 128), (96, 96), (64, 256), (96, 256), (128, 192), (112, 144), (80, 176))
FULL = ((256, 256),)
ODD = ((192, 256), (208, 288), (224, 224), (176, 240), (256, 208), (288, 288))


@dataclass(frozen=True)
class DenseLabels:
    """What each patch of each picture shows, in cell order; shapes (N, rows, columns, 4, ...)."""

    characters: Ints  # two character slots a patch, left and right; 0 is "none"
    ordinals: Ints
    shapes: Ints


@dataclass(frozen=True)
class Batch:
    """One training step; see `twin.Glimpse.forward` for the shapes."""

    name: str
    tokens: Ints
    positions: Ints
    answered: NDArray[np.bool_]  # slots that belong to an answer
    images: NDArray[np.uint8] | None
    labels: DenseLabels | None
    looks: Ints | None
    cells: Ints | None


@dataclass
class _Sequence:
    """One dialog while it is laid out."""

    tokens: list[int] = field(default_factory=list)
    positions: list[tuple[int, int, int]] = field(default_factory=list)
    answered: list[bool] = field(default_factory=list)
    image_slots: list[int] = field(default_factory=list)  # first slot of each picture
    looks: list[tuple[int, int]] = field(default_factory=list)
    next_position: int = 0


def cell_of(x: float, y: float, rows: int, columns: int) -> int:
    """Index of the cell that holds the pixel (x, y)."""
    row, column = min(int(y) // CELL, rows - 1), min(int(x) // CELL, columns - 1)
    return row * columns + column


def _in_cell_order(grid: Ints) -> Ints:
    """(2 rows, 2 columns, ...) of patches as (rows, columns, 4, ...)."""
    rows, columns = grid.shape[0] // 2, grid.shape[1] // 2
    split = grid.reshape(rows, 2, columns, 2, *grid.shape[2:])
    return np.moveaxis(split, 2, 1).reshape(rows, columns, 4, *grid.shape[2:])


def dense_labels(shown: Iterable[Picture]) -> DenseLabels:
    """Labels of pictures that share one size."""
    characters, ordinals, shapes = [], [], []
    for picture in shown:
        down, across = picture.pixels.shape[0] // PATCH, picture.pixels.shape[1] // PATCH
        character = np.zeros((down, across, 2), np.int64)
        ordinal = np.full((down, across), NO_LABEL, np.int64)
        shape = np.full((down, across), NO_LABEL, np.int64)
        for glyph in reversed(picture.glyphs):
            row, column = (
                min(int(glyph.y) // PATCH, down - 1),
                min(int(glyph.x) // PATCH, across - 1),
            )
            slot = int(glyph.x - column * PATCH >= PATCH / 2)
            character[row, column, slot] = CHARACTER_IDS.get(glyph.character, 0)
            ordinal[row, column] = min(glyph.index, ORDINALS - 1)
        if picture.kind == "shape":
            reach = max(6.0, picture.radius * 0.8)
            y = np.arange(down)[:, None] * PATCH + PATCH / 2
            x = np.arange(across)[None] * PATCH + PATCH / 2
            near_x = abs(x - picture.center[0]) < reach
            near_y = abs(y - picture.center[1]) < reach
            shape[near_x & near_y] = pictures.SHAPES.index(picture.shape)
        characters.append(_in_cell_order(character))
        ordinals.append(_in_cell_order(ordinal))
        shapes.append(_in_cell_order(shape))
    return DenseLabels(np.stack(characters), np.stack(ordinals), np.stack(shapes))


class DialogBatches:
    """Makes batches; the same seed gives the same batch."""

    def __init__(self, tokenizer: Tokenizer, patches_per_batch: int, text_share: float) -> None:
        self._tokenizer = tokenizer
        image_token = tokenizer.token_to_id(IMAGE_SLOT)
        assert image_token is not None
        self._image_token = image_token
        self._patches = patches_per_batch
        self._text_share = text_share
        self._encode = lru_cache(maxsize=20_000)(self._encode_uncached)

    def _encode_uncached(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def make(self, seed: int) -> Batch:
        """A batch of dialogs that share a picture size and a number of pictures."""
        rng = random.Random(seed)
        group = rng.random()
        name, choices = (
            ("small", SMALL)
            if group < 0.25
            else ("middle", MIDDLE)
            if group < 0.48
            else ("full", FULL)
            if group < 0.95
            else ("odd", ODD)
        )
        height, width = rng.choice(choices)
        kind = rng.random()
        count = 0 if kind < 0.035 else 1 if kind < 0.79 else 2
        if kind > 0.99 and name == "small":
            count = 3
        if count == 0:
            return self._pack("chat", [self._dialog(rng, []) for _ in range(48)], [], 0)
        patches = (height // PATCH) * (width // PATCH) * count
        rows = max(4 if count == 1 else 2, min(96, self._patches // patches))
        text_share = self._text_share if count == 1 else 0.1
        shown = [
            [pictures.any_picture(rng, height, width, text_share) for _ in range(count)]
            for _ in range(rows)
        ]
        sequences = [self._dialog(rng, group_shown) for group_shown in shown]
        return self._pack(f"{count} {name}", sequences, shown, count)

    def prompt(
        self, question: str, shown: Sequence[Picture]
    ) -> tuple[list[int], list[tuple[int, int, int]]]:
        """Tokens and positions of one question about pictures, up to where its answer starts."""
        sequence = _Sequence()
        images = IMAGE * len(shown)
        text = f"<|im_start|>user\n{images}{question}{END_OF_TURN}\n<|im_start|>assistant\n"
        self._append(sequence, text, shown)
        return sequence.tokens, sequence.positions

    def _turns(self, rng: random.Random, shown: Sequence[Picture]) -> list[Turn]:
        more = rng.random()
        if not shown:
            return [dialogs.chat(rng)] + ([dialogs.chat(rng)] if more < 0.1 else [])
        if len(shown) == 1:
            turns = [dialogs.about_one(rng, shown[0])]
            if more < 0.15:
                turns.append(dialogs.about_one(rng, shown[0], picture_count=0))
            elif more < 0.19:
                turns.append(dialogs.chat(rng))
            elif more < 0.22:
                turns.insert(0, dialogs.chat(rng))
            return turns
        if len(shown) == 2 and more < 0.06:
            return [dialogs.about_one(rng, picture, i) for i, picture in enumerate(shown)]
        return [dialogs.about_several(rng, shown)]

    def _dialog(self, rng: random.Random, shown: Sequence[Picture]) -> _Sequence:
        sequence = _Sequence()
        if rng.random() < 0.25:
            prompt = rng.choice(dialogs.SYSTEM)
            self._append(sequence, f"<|im_start|>system\n{prompt}{END_OF_TURN}\n", shown)
        for turn in self._turns(rng, shown):
            images = IMAGE * turn.picture_count
            question = turn.question + images if rng.random() < 0.15 else images + turn.question
            before = f"<|im_start|>user\n{question}{END_OF_TURN}\n<|im_start|>assistant\n"
            self._append(sequence, before, shown)
            self._append_answer(sequence, turn.answer, shown)
            self._append(sequence, "\n", shown)
        return sequence

    def _append(self, sequence: _Sequence, text: str, shown: Sequence[Picture]) -> None:
        for token in self._encode(text):
            if token == self._image_token:
                self._append_picture(sequence, shown[len(sequence.image_slots)])
            else:
                self._append_token(sequence, token, answered=False)

    def _append_token(self, sequence: _Sequence, token: int, *, answered: bool) -> None:
        place = sequence.next_position
        sequence.tokens.append(token)
        sequence.positions.append((place, place, place))
        sequence.answered.append(answered)
        sequence.next_position += 1

    def _append_picture(self, sequence: _Sequence, picture: Picture) -> None:
        rows, columns = picture.pixels.shape[0] // CELL, picture.pixels.shape[1] // CELL
        start = sequence.next_position
        sequence.image_slots.append(len(sequence.tokens))
        sequence.tokens += [self._image_token] * (rows * columns)
        sequence.answered += [False] * (rows * columns)
        sequence.positions += [
            (start, start + row, start + column) for row in range(rows) for column in range(columns)
        ]
        sequence.next_position += max(rows, columns)

    def _append_answer(
        self, sequence: _Sequence, answer: dialogs.Answer, shown: Sequence[Picture]
    ) -> None:
        """Append an answer, noting for each read character the cell that shows it."""
        cell_at: dict[int, int] = {}
        for offset, index in answer.readings:
            picture = shown[index]
            rows, columns = picture.pixels.shape[0] // CELL, picture.pixels.shape[1] // CELL
            for glyph in picture.glyphs:
                cell = cell_of(glyph.x, glyph.y, rows, columns)
                cell_at[offset + glyph.index] = sequence.image_slots[index] + cell
        for token, place in self._answer_tokens(answer, shown):
            if place in cell_at:
                sequence.looks.append((len(sequence.tokens) - 1, cell_at[place]))
            self._append_token(sequence, token, answered=True)

    def _answer_tokens(
        self, answer: dialogs.Answer, shown: Sequence[Picture]
    ) -> list[tuple[int, int | None]]:
        """Tokens of an answer, and the offset of each character that was read.

        A text that is read becomes one token a character whatever the merges say: the model then
        never has to see two letters ahead, and what it generates decodes to the same text.
        """
        tokens: list[tuple[int, int | None]] = []
        written = 0
        for offset, index in answer.readings:
            end = offset + len(shown[index].text)
            tokens += [(token, None) for token in self._encode(answer.text[written:offset])]
            tokens += [(self._character(answer.text[i]), i) for i in range(offset, end)]
            written = end
        rest = self._encode(answer.text[written:] + END_OF_TURN)
        return tokens + [(token, None) for token in rest]

    def _character(self, character: str) -> int:
        token = self._tokenizer.token_to_id(SPACE if character == " " else character)
        assert token is not None
        return token

    def _pack(
        self,
        name: str,
        sequences: Sequence[_Sequence],
        shown: Sequence[Sequence[Picture]],
        count: int,
    ) -> Batch:
        """Pad the sequences into arrays."""
        rows, length = len(sequences), max(len(s.tokens) for s in sequences)
        tokens = np.zeros((rows, length), np.int64)
        positions = np.zeros((3, rows, length), np.int64)
        answered = np.zeros((rows, length), np.bool_)
        for i, sequence in enumerate(sequences):
            filled = len(sequence.tokens)
            tokens[i, :filled] = sequence.tokens
            positions[:, i, :filled] = np.array(sequence.positions).T
            answered[i, :filled] = sequence.answered
        if not count:
            return Batch(name, tokens, positions, answered, None, None, None, None)
        flat = [picture for group in shown for picture in group]
        looks = [(i, *look) for i, sequence in enumerate(sequences) for look in sequence.looks]
        cells = _character_cells(sequences, shown)
        return Batch(
            name,
            tokens,
            positions,
            answered,
            np.stack([picture.pixels for picture in flat]),
            dense_labels(flat),
            np.array(looks, np.int64) if looks and cells else None,
            np.array(cells, np.int64) if looks and cells else None,
        )


def _character_cells(
    sequences: Sequence[_Sequence], shown: Sequence[Sequence[Picture]]
) -> list[tuple[int, ...]]:
    """(image, cell, row, slot, three character ids) of every cell with characters."""
    cells: list[tuple[int, ...]] = []
    image = 0
    for row, (sequence, group) in enumerate(zip(sequences, shown, strict=True)):
        for picture, first_slot in zip(group, sequence.image_slots, strict=True):
            for cell, characters in characters_by_cell(picture).items():
                cells.append((image, cell, row, first_slot + cell, *characters))
            image += 1
    return cells


def characters_by_cell(picture: Picture) -> dict[int, tuple[int, ...]]:
    """The first three character ids, left to right, of every cell that holds any."""
    rows, columns = picture.pixels.shape[0] // CELL, picture.pixels.shape[1] // CELL
    found: dict[int, list[int]] = {}
    for glyph in picture.glyphs:
        cell = cell_of(glyph.x, glyph.y, rows, columns)
        found.setdefault(cell, []).append(CHARACTER_IDS.get(glyph.character, 0))
    return {cell: tuple(([*ids, 0, 0, 0])[:3]) for cell, ids in found.items()}
