"""Vision and language together learn dialogs about fresh pictures (stage 2 of 2).

python -m tests.models.glimpse.train --init pre.pt --minutes 100 --out glimpse.pt
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from tests.models.glimpse import checkpoint, loop, pages, tokenizer
from tests.models.glimpse.batches import DialogBatches
from tests.models.glimpse.losses import dialog_loss, page_loss


def main() -> None:
    """Train until the minutes are over."""
    parser = loop.parser(__doc__, "glimpse.pt", 100.0)
    parser.add_argument("--learning-rate", type=float, default=1.1e-3)
    parser.add_argument("--patches", type=int, default=3072, help="patches in a batch")
    parser.add_argument("--text-share", type=float, default=0.62, help="pictures that hold text")
    parser.add_argument("--page-share", type=float, default=0.5, help="steps with pages added")
    options = parser.parse_args()
    built = tokenizer.build()
    maker = DialogBatches(built, options.patches, options.text_share)
    dialogs = loop.stream(maker.make, options.seed * 10**8)
    make_page = partial(pages.make, patches_per_batch=options.patches // 2)
    sheets = loop.stream(make_page, options.seed * 10**8 + 5 * 10**7)
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    model = checkpoint.new_model(built)
    if options.init:
        checkpoint.load_into(model, built, options.init)
    checkpoint.compile_blocks(model)

    def step(share: float) -> tuple[Tensor, tuple[str, float, float]]:
        batch = next(dialogs)
        found = dialog_loss(model, batch, patch_weight=1.0 if share < 0.5 else 0.3)
        total = found.total
        if torch.rand(()).item() < options.page_share:
            total = total + page_loss(model, next(sheets))
        return total, (batch.name, found.answers.item(), found.exact)

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
