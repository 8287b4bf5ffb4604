"""What training minimises: answers, and dense labels that teach vision where and what to read."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from tests.models.glimpse.batches import NO_LABEL, Batch, DenseLabels
from tests.models.glimpse.pages import PageBatch
from tests.models.glimpse.twin import Glimpse
from tests.models.glimpse.words import CHARACTER_CLASSES

BLANK_SHARE = 0.08  # of the patches without a character that are scored too
SHAPE_PATCHES_MAX = 400


@dataclass(frozen=True)
class DialogLoss:
    """The loss of a batch of dialogs.

    Attributes:
        total: What to minimise.
        answers: Cross-entropy of the answers' tokens alone.
        exact: Share of dialogs whose every answer token is right.
    """

    total: Tensor
    answers: Tensor
    exact: float


def _patch_loss(
    model: Glimpse, states: Tensor, labels: DenseLabels, *, with_ordinals: bool
) -> Tensor:
    """How badly single patches tell their characters, their place in the text and their shape."""
    states = states.reshape(-1, states.shape[-1])
    characters = torch.from_numpy(labels.characters).view(-1, 2)
    written = characters.sum(-1) > 0
    scored = (written | (torch.rand(written.shape) < BLANK_SHARE)).nonzero()[:, 0]
    character_logits, ordinal_logits, _ = model.heads.read_patches(states[scored])
    loss = functional.cross_entropy(character_logits.flatten(0, 1), characters[scored].flatten())
    if with_ordinals and written.any():
        ordinals = torch.from_numpy(labels.ordinals).flatten()[scored]
        loss = loss + 0.3 * functional.cross_entropy(
            ordinal_logits, ordinals, ignore_index=NO_LABEL
        )
    shapes = torch.from_numpy(labels.shapes).flatten()
    drawn = (shapes >= 0).nonzero()[:, 0]
    drawn = drawn[torch.randperm(len(drawn))[:SHAPE_PATCHES_MAX]]
    if len(drawn):
        _, _, shape_logits = model.heads.read_patches(states[drawn])
        loss = loss + 0.3 * functional.cross_entropy(shape_logits, shapes[drawn])
    return loss


def _character_loss(logits: Tensor, wanted: Tensor) -> Tensor:
    return functional.cross_entropy(logits.reshape(-1, CHARACTER_CLASSES), wanted.reshape(-1))


def page_loss(model: Glimpse, page: PageBatch) -> Tensor:
    """Loss of the vision tower on pages; the language model takes no part."""
    tokens, states = model.vision_tower(torch.from_numpy(page.images))
    loss = _patch_loss(model, states, page.labels, with_ordinals=False)
    if len(page.cells):
        cells = torch.from_numpy(page.cells)
        read = model.heads.cell(tokens[cells[:, 0], cells[:, 1]])
        loss = loss + 0.7 * _character_loss(read, cells[:, 2:])
    return loss


def dialog_loss(model: Glimpse, batch: Batch, *, patch_weight: float) -> DialogLoss:
    """Loss of the whole model on dialogs."""
    tokens, answered = torch.from_numpy(batch.tokens), torch.from_numpy(batch.answered)
    predicted = functional.pad(answered[:, 1:], (0, 1))  # a token is predicted one slot before it
    images = None if batch.images is None else torch.from_numpy(batch.images)
    looks = None if batch.looks is None else torch.from_numpy(batch.looks)
    cells = None if batch.cells is None else torch.from_numpy(batch.cells)
    positions = torch.from_numpy(batch.positions)
    output = model(tokens, positions, images, predicted, looks, cells)
    wanted = tokens[:, 1:][answered[:, 1:]]
    answers = total = functional.cross_entropy(output.logits, wanted)
    if cells is not None:
        read = model.heads.cell(output.image_tokens[cells[:, 0], cells[:, 1]])
        copied = model.heads.value(output.copied)
        reading = _character_loss(read, cells[:, 4:]) + _character_loss(copied, cells[:, 4:])
        total = total + 0.5 * output.pointer_loss + 0.7 * reading
    if batch.labels is not None:
        patches = _patch_loss(model, output.patch_states, batch.labels, with_ordinals=True)
        total = total + patch_weight * patches
    misses = (output.logits.argmax(-1) != wanted).float()
    wrong = torch.zeros(len(tokens)).index_add_(0, predicted.nonzero()[:, 0], misses)
    return DialogLoss(total, answers, (wrong == 0).float().mean().item())
