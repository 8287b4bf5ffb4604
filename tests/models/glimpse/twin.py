"""The model in plain PyTorch: the same maths and weight names as mlx-vlm's `qwen2_5_vl`.

PyTorch is needed to train and export only; the project runs the exported folder with MLX.
"""

# mypy: disable-error-code="misc"
# The project has no torch, so to mypy every nn.Module is Any, which strict forbids as a base.

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.models.glimpse.words import CHARACTER_CLASSES

NORM_EPS = 1e-6
ORDINALS = 16  # places in a text that the patch head tells apart
SHAPE_CLASSES = 7
POINTER_HEADS = 2  # heads of layer 1 that are taught where the next character stands


@dataclass(frozen=True)
class Sizes:
    """Every dimension of the model; patch and window sides in pixels."""

    vision_width: int = 96
    vision_heads: int = 3
    vision_depth: int = 4
    vision_inner: int = 224
    patch: int = 8
    window: int = 64
    full_attention_blocks: tuple[int, ...] = (2,)
    width: int = 128
    heads: int = 4
    layers: int = 4
    inner: int = 320
    rope_theta: float = 30.0
    rope_sections: tuple[int, int, int] = (2, 7, 7)  # half-dimensions for time, height, width

    @property
    def cell(self) -> int:
        """Side in pixels of the square that becomes one image token: 2x2 patches."""
        return 2 * self.patch


Rotation = tuple[Tensor, Tensor]  # cosines and sines


def _rotated(x: Tensor, rotation: Rotation) -> Tensor:
    cos, sin = rotation
    half = x.shape[-1] // 2
    return x * cos + torch.cat((-x[..., half:], x[..., :half]), -1) * sin


class RmsNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return functional.rms_norm(x, (x.shape[-1],), self.weight, NORM_EPS)


class SwiGlu(nn.Module):
    def __init__(self, width: int, inner: int, bias: bool) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(width, inner, bias=bias)
        self.up_proj = nn.Linear(width, inner, bias=bias)
        self.down_proj = nn.Linear(inner, width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(functional.silu(self.gate_proj(x)) * self.up_proj(x))


class VisionAttention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, rotation: Rotation, mask: Tensor | None) -> Tensor:
        groups, length, width = x.shape
        qkv = self.qkv(x).view(groups, length, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        q, k = _rotated(q, rotation), _rotated(k, rotation)
        out = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.proj(out.transpose(1, 2).reshape(groups, length, width))


class VisionBlock(nn.Module):
    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.norm1 = RmsNorm(sizes.vision_width)
        self.norm2 = RmsNorm(sizes.vision_width)
        self.attn = VisionAttention(sizes.vision_width, sizes.vision_heads)
        self.mlp = SwiGlu(sizes.vision_width, sizes.vision_inner, bias=True)

    def forward(self, x: Tensor, rotation: Rotation, mask: Tensor | None) -> Tensor:
        x = x + self.attn(self.norm1(x), rotation, mask)
        return x + self.mlp(self.norm2(x))


class Merger(nn.Module):
    """Turns the 2x2 patches of a cell into one token for the language model."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        merged = 4 * sizes.vision_width
        self.ln_q = RmsNorm(sizes.vision_width)
        self.mlp = nn.Sequential(
            nn.Linear(merged, merged), nn.GELU(), nn.Linear(merged, sizes.width)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp(self.ln_q(x).flatten(-2))


class PatchEmbedding(nn.Module):
    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.proj = nn.Linear(3 * sizes.patch**2, sizes.vision_width, bias=False)


class _Windows:
    """Cuts a (B, rows, columns, 4, D) grid of cells into windows, and puts it together again."""

    def __init__(self, rows: int, columns: int, side: int) -> None:
        self.rows, self.columns, self.side = rows, columns, side
        self.pad_rows, self.pad_columns = -rows % side, -columns % side
        self.down = (rows + self.pad_rows) // side
        self.across = (columns + self.pad_columns) // side

    def split(self, x: Tensor) -> Tensor:
        if self.pad_rows or self.pad_columns:
            x = functional.pad(x, (0, 0, 0, 0, 0, self.pad_columns, 0, self.pad_rows))
        batch, width, side = x.shape[0], x.shape[-1], self.side
        x = x.view(batch, self.down, side, self.across, side, 4, width)
        return x.permute(0, 1, 3, 2, 4, 5, 6).reshape(-1, side * side * 4, width)

    def join(self, x: Tensor) -> Tensor:
        width, side = x.shape[-1], self.side
        x = x.view(-1, self.down, self.across, side, side, 4, width)
        x = x.permute(0, 1, 3, 2, 4, 5, 6)
        x = x.reshape(-1, self.down * side, self.across * side, 4, width)
        return x[:, : self.rows, : self.columns]

    def mask(self, batch: int) -> Tensor | None:
        """True where a patch may be attended to; None when no window is cut off."""
        if not (self.pad_rows or self.pad_columns):
            return None
        real = self.split(torch.ones(1, self.rows, self.columns, 4, 1))[..., 0] > 0
        real = real | ~real.any(-1, keepdim=True)
        return real.repeat(batch, 1)[:, None, None, :]


class VisionTower(nn.Module):
    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.patch_embed = PatchEmbedding(sizes)
        self.blocks = nn.ModuleList([VisionBlock(sizes) for _ in range(sizes.vision_depth)])
        self.merger = Merger(sizes)
        self._rotations: dict[tuple[int, int], Rotation] = {}

    def _rotation(self, rows: int, columns: int) -> Rotation:
        """Angles of every patch of a grid of cells, in cell order: (1, 1, patches, head)."""
        if (rows, columns) not in self._rotations:
            quarter = self.sizes.vision_width // self.sizes.vision_heads // 2
            inverse = 1 / (10000.0 ** (torch.arange(0, quarter, 2).float() / quarter))
            y = torch.arange(2 * rows).view(rows, 1, 2, 1).expand(rows, columns, 2, 2)
            x = torch.arange(2 * columns).view(1, columns, 1, 2).expand(rows, columns, 2, 2)
            angles = torch.cat((y[..., None] * inverse, x[..., None] * inverse), -1)
            angles = torch.cat((angles, angles), -1).reshape(1, 1, -1, 4 * inverse.numel())
            self._rotations[rows, columns] = (angles.cos(), angles.sin())
        return self._rotations[rows, columns]

    def _patches(self, images: Tensor) -> Tensor:
        batch, height, width, _ = images.shape
        side, cell = self.sizes.patch, self.sizes.cell
        x = (images.float() / 255 - 0.5) / 0.5
        x = x.view(batch, height // cell, 2, side, width // cell, 2, side, 3)
        x = x.permute(0, 1, 4, 2, 5, 7, 3, 6)  # channels before pixels, as in mlx-vlm
        return x.reshape(batch, height // cell, width // cell, 4, 3 * side * side)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Encode (B, H, W, 3) bytes.

        Returns:
            Image tokens (B, cells, width), and patch states (B, rows, columns, 4, vision width).
        """
        x = self.patch_embed.proj(self._patches(images))
        batch, rows, columns, _, width = x.shape
        side = self.sizes.window // self.sizes.cell
        windows = _Windows(rows, columns, side)
        mask = windows.mask(batch)
        # Rotary positions are relative, so one window's angles serve them all.
        window_rotation, full_rotation = self._rotation(side, side), self._rotation(rows, columns)
        for i, block in enumerate(self.blocks):
            if i in self.sizes.full_attention_blocks:
                x = block(x.reshape(batch, -1, width), full_rotation, None)
                x = x.view(batch, rows, columns, 4, width)
            else:
                x = windows.join(block(windows.split(x), window_rotation, mask))
        return self.merger(x).reshape(batch, rows * columns, -1), x


class Attention(nn.Module):
    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.heads = sizes.heads
        self.q_proj = nn.Linear(sizes.width, sizes.width)
        self.k_proj = nn.Linear(sizes.width, sizes.width)
        self.v_proj = nn.Linear(sizes.width, sizes.width)
        self.o_proj = nn.Linear(sizes.width, sizes.width, bias=False)

    def forward(self, x: Tensor, rotation: Rotation) -> Tensor:
        batch, length, width = x.shape
        shape = (batch, length, self.heads, width // self.heads)
        q, k, v = (
            project(x).view(shape).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        q, k = _rotated(q, rotation), _rotated(k, rotation)
        out = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.o_proj(out.transpose(1, 2).reshape(batch, length, width))


class Layer(nn.Module):
    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.input_layernorm = RmsNorm(sizes.width)
        self.post_attention_layernorm = RmsNorm(sizes.width)
        self.self_attn = Attention(sizes)
        self.mlp = SwiGlu(sizes.width, sizes.inner, bias=False)

    def forward(self, x: Tensor, rotation: Rotation) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), rotation)
        return x + self.mlp(self.post_attention_layernorm(x))


class Decoder(nn.Module):
    def __init__(self, sizes: Sizes, vocabulary: int) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(vocabulary, sizes.width)
        self.layers = nn.ModuleList([Layer(sizes) for _ in range(sizes.layers)])
        self.norm = RmsNorm(sizes.width)


class LanguageModel(nn.Module):
    """Exists for its name: mlx-vlm stores the decoder under `language_model.model`."""

    def __init__(self, sizes: Sizes, vocabulary: int) -> None:
        super().__init__()
        self.model = Decoder(sizes, vocabulary)


class Heads(nn.Module):
    """Training-only read-outs; they are dropped at export.

    `patch` reads a patch's two character slots, a character's place in its text and a shape;
    `cell` and `value` read the (up to three) characters of a cell from its image token and from
    what the pointer heads copy.
    """

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        outputs = 2 * CHARACTER_CLASSES + ORDINALS + SHAPE_CLASSES
        self.patch = nn.Linear(sizes.vision_width, outputs)
        self.cell = nn.Linear(sizes.width, 3 * CHARACTER_CLASSES)
        copied = POINTER_HEADS * sizes.width // sizes.heads
        self.value = nn.Linear(copied, 3 * CHARACTER_CLASSES)

    def read_patches(self, states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits of (..., 2, character), of the ordinal and of the shape."""
        characters, ordinal, shape = self.patch(states).split(
            (2 * CHARACTER_CLASSES, ORDINALS, SHAPE_CLASSES), -1
        )
        return characters.unflatten(-1, (2, CHARACTER_CLASSES)), ordinal, shape


@dataclass(frozen=True)
class Output:
    """A training step's forward pass; everything after `logits` is None without pictures."""

    logits: Tensor
    image_tokens: Tensor | None = None
    patch_states: Tensor | None = None
    pointer_loss: Tensor | None = None
    copied: Tensor | None = None


class Glimpse(nn.Module):
    """The whole model."""

    def __init__(self, vocabulary: int, image_token: int, sizes: Sizes | None = None) -> None:
        super().__init__()
        self.sizes = sizes or Sizes()
        self.image_token = image_token
        self.vision_tower = VisionTower(self.sizes)
        self.language_model = LanguageModel(self.sizes, vocabulary)
        self.heads = Heads(self.sizes)
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                last = name.endswith(("o_proj", "down_proj", "attn.proj"))
                scale = (0.6 if last else 1.0) / math.sqrt(module.in_features)
                nn.init.normal_(module.weight, std=scale)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.normal_(self.language_model.model.embed_tokens.weight, std=0.08)

    def _rotation(self, positions: Tensor) -> Rotation:
        """Angles of (3, B, L) positions, shaped (B, 1, L, head)."""
        head = self.sizes.width // self.sizes.heads
        inverse = 1 / (self.sizes.rope_theta ** (torch.arange(0, head, 2).float() / head))
        section = torch.repeat_interleave(torch.arange(3), torch.tensor(self.sizes.rope_sections))
        angles = positions.permute(1, 2, 0).float()[..., section] * inverse
        angles = torch.cat((angles, angles), -1)[:, None]
        return angles.cos(), angles.sin()

    def _pointer(
        self, x: Tensor, rotation: Rotation, looks: Tensor, cells: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Teach layer 1 where the next character stands, and read what it copies from there."""
        attention = self.language_model.model.layers[1].self_attn
        head = self.sizes.width // self.sizes.heads
        row, asking, wanted = looks.unbind(1)
        cos, sin = rotation
        later = torch.arange(x.shape[1]) > asking[:, None]
        losses = []
        for start in range(0, POINTER_HEADS * head, head):
            part = slice(start, start + head)
            q = functional.linear(
                x[row, asking], attention.q_proj.weight[part], attention.q_proj.bias[part]
            )
            q = _rotated(q, (cos[row, 0, asking], sin[row, 0, asking]))
            k = functional.linear(x, attention.k_proj.weight[part], attention.k_proj.bias[part])
            k = _rotated(k, (cos[:, 0], sin[:, 0]))
            scores = torch.einsum("nd,nld->nl", q, k[row]) / math.sqrt(head)
            losses.append(functional.cross_entropy(scores.masked_fill(later, -1e4), wanted))
        copied = slice(0, POINTER_HEADS * head)
        values = functional.linear(
            x[cells[:, 2], cells[:, 3]],
            attention.v_proj.weight[copied],
            attention.v_proj.bias[copied],
        )
        return torch.stack(losses).mean(), values

    def forward(
        self,
        tokens: Tensor,
        positions: Tensor,
        images: Tensor | None,
        predicted: Tensor,
        looks: Tensor | None = None,
        cells: Tensor | None = None,
    ) -> Output:
        """Logits at the `predicted` slots of (B, L) `tokens`.

        Args:
            tokens: Token ids, image slots already repeated once a cell.
            positions: (3, B, L) time, height and width positions.
            images: (N, H, W, 3) bytes in the order of their slots.
            predicted: (B, L) booleans: where logits are wanted.
            looks: (K, 3) row, slot that predicts a character, slot of the cell showing it.
            cells: (M, 7) image, cell, row, slot and three character ids.
        """
        decoder = self.language_model.model
        x = decoder.embed_tokens(tokens)
        image_tokens = patch_states = pointer_loss = copied = None
        if images is not None:
            image_tokens, patch_states = self.vision_tower(images)
            slots = (tokens == self.image_token)[..., None]
            x = x.masked_scatter(slots, image_tokens.reshape(-1, x.shape[-1]))
        rotation = self._rotation(positions)
        for i, layer in enumerate(decoder.layers):
            if i == 1 and looks is not None and cells is not None:
                normed = layer.input_layernorm(x)
                pointer_loss, copied = self._pointer(normed, rotation, looks, cells)
            x = layer(x, rotation)
        logits = decoder.norm(x)[predicted] @ decoder.embed_tokens.weight.T
        return Output(logits, image_tokens, patch_states, pointer_loss, copied)
