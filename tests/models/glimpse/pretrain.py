"""Vision alone learns letters and shapes from densely labelled pages (stage 1 of 2).

python -m tests.models.glimpse.pretrain --minutes 11 --out pre.pt
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from tests.models.glimpse import checkpoint, loop, pages, tokenizer
from tests.models.glimpse.losses import page_loss


def main() -> None:
    """Train until the minutes are over."""
    parser = loop.parser(__doc__, "pre.pt", 11.0)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--patches", type=int, default=1536, help="patches in a batch")
    options = parser.parse_args()
    built = tokenizer.build()
    make = partial(pages.make, patches_per_batch=options.patches)
    batches = loop.stream(make, options.seed * 10**8)
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    model = checkpoint.new_model(built)
    if options.init:
        checkpoint.load_into(model, built, options.init)
    checkpoint.compile_blocks(model)

    def step(share: float) -> tuple[Tensor, tuple[str, float, float]]:
        loss = page_loss(model, next(batches))
        return loss, ("page", loss.item(), 0.0)

    loop.run(
        model,
        step,
        lambda: checkpoint.save(model, built, options.out),
        minutes=options.minutes,
        rate=options.learning_rate,
        hold=options.hold,
    )


if __name__ == "__main__":
    main()
