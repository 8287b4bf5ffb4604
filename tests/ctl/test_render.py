"""Pages word for word, as they reach a pipe."""

from ctl.blocks import Line, Meter
from ctl.plain import plain
from ctl.render import loaded_line, status_page, unloaded_line
from daemon.wire import control as c
from tests.ctl.views import NOW_MS, resident, status


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
                tokens_per_s=87.54,
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
        "NAME          STATE               SIZE  CONTEXT  LEASES  TOK/S  UNTIL\n"
        "mlxd/glimpse  idle             1.20 GB    2,048       0      -  in 5m\n"
        "qwen3-8b      busy: 1 running  12.0 GB   40,960       2   87.5  in use\n"
        "tiny          loading 42%      1.20 GB    2,048       0      -  -\n"
        "\n"
        "1 request waiting\n"
        "MODEL      CLIENT      WAITING  GIVES UP\n"
        "llama-70b  mlx-bridge  12.3 s   in 1m\n"
        "\n"
        "Warning: qwen3-8b was evicted 3 times in 10 minutes\n"
    )


def test_what_waits_for_the_next_load_is_accounted_for() -> None:
    text = plain(status_page(status(committed_bytes=1_320_000_000, spare_bytes=120_000_000)))

    assert "Memory: 1.32 GB of 24.0 GB (6 %)" in text
    assert text.endswith("and 120 MB for the process that waits for the next load\n")


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


def test_what_loads_and_unloads_came_to() -> None:
    loaded = c.Loaded(id=1, model="m", worker="w1", load_ms=1234, measured_bytes=1_100_000_000)
    already = c.Loaded(id=1, model="m", worker="w1", load_ms=0, measured_bytes=1_100_000_000)

    assert loaded_line(loaded) == Line("m is loaded: 1.10 GB in 1.2 s")
    assert loaded_line(already) == Line("m was loaded already (1.10 GB)")
    assert unloaded_line(c.Unloaded(id=1, model="m", freed_bytes=5_000_000)) == Line(
        "m is unloaded: 5.00 MB freed"
    )
