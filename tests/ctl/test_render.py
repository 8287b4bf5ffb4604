"""Pages word for word, as they reach a pipe."""

from ctl.blocks import Line, Meter
from ctl.plain import plain
from ctl.render import loaded_line, models_page, status_page, unloaded_line
from daemon.wire import control as c
from tests.ctl.views import NOW_MS, known, resident, status


def test_status_of_a_pool_at_work() -> None:
    view = status(
        committed_bytes=13_200_000_000,
        models=(
            resident(),
            resident(
                name="qwen3-8b",
                state="busy",
                claim_bytes=12_000_000_000,
                context_tokens=40_960,
                leases=2,
                running=1,
                expires_at_ms=None,
            ),
            resident(name="tiny", state="loading", progress=0.424, expires_at_ms=None, pid=None),
        ),
        queue=(
            c.QueuedRequest(
                model="llama-70b",
                client="mlx-bridge",
                since_ms=NOW_MS - 12_300,
                deadline_at_ms=NOW_MS + 107_700,
            ),
        ),
        warnings=("qwen3-8b was evicted 3 times in 10 minutes",),
    )

    assert plain(status_page(view)) == (
        "mlxd 0.1.0, up 3h 12m, pid 812, home /home/ada/.mlxd\n"
        "Memory: 13.2 GB of 24.0 GB (55 %), 10.8 GB free\n"
        "\n"
        "NAME          STATE           SIZE  CONTEXT  LEASES  RUNNING  UNTIL\n"
        "mlxd/glimpse  idle         1.20 GB    2,048       0        0  in 5m\n"
        "qwen3-8b      busy         12.0 GB   40,960       2        1  in use\n"
        "tiny          loading 42%  1.20 GB    2,048       0        0  -\n"
        "\n"
        "1 request waiting\n"
        "MODEL      CLIENT      WAITING  GIVES UP\n"
        "llama-70b  mlx-bridge  12.3 s   in 1m\n"
        "\n"
        "Warning: qwen3-8b was evicted 3 times in 10 minutes\n"
    )


def test_status_of_an_empty_pool_says_what_to_do() -> None:
    text = plain(status_page(status(models=(), committed_bytes=0)))

    assert text.endswith("\nNo model is loaded. To load one: mlxctl load MODEL\n")
    assert "Memory: 0 B of 24.0 GB (0 %), 24.0 GB free\n" in text


def test_read_only_is_said_in_plain_words() -> None:
    text = plain(status_page(status(read_only=True)))

    assert "Read-only: the event log cannot be written" in text
    assert "Loaded models keep answering." in text


def test_a_budget_that_was_lowered_below_what_is_committed() -> None:
    meter = status_page(status(budget_bytes=1_000_000_000))[1]

    assert meter == Meter(
        "Memory", 1_200_000_000, 1_000_000_000, "1.20 GB of 1.00 GB (120 %), 200 MB over"
    )


def test_until_says_how_long_a_model_stays() -> None:
    cells = {
        "pinned": resident(pinned=True, state="busy"),
        "forever": resident(expires_at_ms=None),
        "in use": resident(state="busy", leases=1),
        "due": resident(expires_at_ms=NOW_MS),
        "-": resident(state="draining"),
    }
    text = plain(status_page(status(models=tuple(cells.values()))))
    rows = [line for line in text.splitlines() if line.startswith("mlxd/glimpse")]

    assert [row.split("  ")[-1].strip() for row in rows] == list(cells)


def test_models_with_a_problem_and_an_alias() -> None:
    view = c.ModelsView(
        id=1,
        models=(
            known(state="idle"),
            known(
                name="broken",
                source="cache",
                kind=None,
                weights_bytes=0,
                context_tokens=0,
                problem="model-00002-of-00002.safetensors is missing",
            ),
            known(name="fast", source="alias", kind="text", targets=("tiny", "mlxd/glimpse")),
        ),
    )

    assert plain(models_page(view)) == (
        "NAME          KIND       SIZE  CONTEXT  STATE        SOURCE   NOTE\n"
        "mlxd/glimpse  vision  6.54 MB    2,048  idle         bundled\n"
        "broken        -             -        -  cannot load  cache    "
        "model-00002-of-00002.safetensors is missing\n"
        "fast          text    6.54 MB    2,048  -            alias    "
        "stands for tiny, then mlxd/glimpse\n"
    )


def test_models_without_notes_have_no_note_column() -> None:
    assert "NOTE" not in plain(models_page(c.ModelsView(id=1, models=(known(),))))


def test_no_models() -> None:
    assert plain(models_page(c.ModelsView(id=1, models=()))) == (
        "No model was found. To load one from a folder: mlxctl load ./folder\n"
    )


def test_what_loads_and_unloads_came_to() -> None:
    loaded = c.Loaded(id=1, model="m", worker="w1", load_ms=1234, measured_bytes=1_100_000_000)
    already = c.Loaded(id=1, model="m", worker="w1", load_ms=0, measured_bytes=1_100_000_000)

    assert loaded_line(loaded) == Line("m is loaded: 1.10 GB in 1.2 s")
    assert loaded_line(already) == Line("m was loaded already (1.10 GB)")
    assert unloaded_line(c.Unloaded(id=1, model="m", freed_bytes=5_000_000)) == Line(
        "m is unloaded: 5.00 MB freed"
    )
