"""``mlxctl models``, word for word as it reaches a pipe."""

from ctl.plain import plain
from ctl.shelf import models_page
from daemon.wire import control as c
from tests.ctl.views import known


def shown(*models: c.KnownModel) -> str:
    return plain(models_page(c.ModelsView(id=1, models=models)))


def test_problems_aliases_and_room_are_told_under_the_table() -> None:
    broken = known(
        name="broken", path="/models/broken", kind=None, capabilities=(), weights_bytes=0,
        context_tokens=0, quantization=None, claim_bytes=None, fits=None,
        problem="model-00002-of-00002.safetensors is missing",
    )  # fmt: skip
    big = known(
        name="big",
        path="/models/big",
        kind="text",
        capabilities=("text", "thinking", "structured", "logprobs"),
        weights_bytes=40_000_000_000,
        quantization="bf16",
        fits="never",
        fit_note="big needs 41.0 GB; the budget is 24.0 GB",
    )
    alias = known(
        name="fast",
        source="alias",
        targets=("tiny", "mlxd/glimpse"),
        fits="after_evicting",
        fit_note="would evict big",
    )

    assert shown(known(state="idle", fits=None), broken, big, alias) == (
        "NAME          KIND       SIZE  QUANT  CONTEXT  CAN            FITS\n"
        "mlxd/glimpse  vision  6.54 MB  4-bit    2,048  tools          in memory\n"
        "broken        -             -  -            -  -              cannot load\n"
        "big           text    40.0 GB  bf16     2,048  thinking json  never\n"
        "fast          vision  6.54 MB  4-bit    2,048  tools          after evicting\n"
        "\n"
        "broken: model-00002-of-00002.safetensors is missing\n"
        "big: big needs 41.0 GB; the budget is 24.0 GB\n"
        "fast: stands for tiny, then mlxd/glimpse; would evict big\n"
        "3 models on disk, 40.0 GB of weights\n"
    )


def test_an_older_daemon_says_nothing_of_room() -> None:
    text = shown(known(fits=None, claim_bytes=None, quantization=None))

    assert text.splitlines()[1].split()[4:] == ["-", "2,048", "tools", "-"]


def test_an_empty_shelf_says_how_to_fill_it() -> None:
    assert shown() == (
        "No model was found. To get one: mlxctl pull REPO\n"
        "To load one from a folder: mlxctl load ./folder\n"
    )
