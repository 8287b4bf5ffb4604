"""Figures as they stand in the document."""

from pathlib import Path

import pytest

from benchmarks.figures import Row, Table, Target, spread
from benchmarks.machine import Machine
from benchmarks.report import DOCUMENT, NoBlock, with_figures
from benchmarks.results import Results, document_text, read_results
from benchmarks.topics import TOPICS

MACHINE = Machine(
    system="Linux 6 x86_64",
    processor="a processor",
    cores=2,
    memory_bytes=24_000_000_000,
    python="3.11.7",
    packages={"mlx": "1.0"},
    fast_blas=False,
    load_average=(0.1, 0.2, 0.3),
)
ROWS = (
    Row(
        what="a|b",
        unit="ms",
        ours=spread([3.0, 1.0, 2.0]),
        target=Target(at_most=1, of="ours"),
        note="a word about it",
    ),
    Row(
        what="pace",
        unit="tok/s",
        ours=spread([400.0]),
        beside="alone",
        theirs=spread([500.0]),
        ratio=spread([0.8]),
        target=Target(at_least=0.75),
    ),
)
RESULTS = Results(1, "2026-01-02", False, 3, MACHINE, (Table("demo", "t", ROWS, ("of all",)),))
BEGIN, END = "<!-- figures: demo -->", "<!-- end of figures -->"
OTHER = f"<!-- figures: other -->\nkept\n{END}"


def test_a_block_is_written_anew_and_nothing_else() -> None:
    before = f"# Title\n\n{BEGIN}\nold | figures\n{END}\n\n{OTHER}\n"
    after = with_figures(before, RESULTS)
    assert after == with_figures(after, RESULTS)
    head, _, rest = after.partition(BEGIN)
    block, _, tail = rest.partition(END)
    assert (head, tail) == ("# Title\n\n", f"\n\n{OTHER}\n")
    assert "old" not in block
    lines = block.splitlines()
    assert "| a\\|b | 2.00 ms (1.00..3.00) |  |  |  | <= 1.00 ms | short |" in lines
    assert "| pace | 400 tok/s | alone | 500 tok/s | 0.80 | >= 0.75 | OK |" in lines
    assert "- A|b: a word about it." in lines
    assert "- Of all." in lines
    assert lines[-1].startswith("Measured 2026-01-02, 3 rounds. a processor, 2 cores, 24 GB")


def test_a_topic_without_a_block_is_told() -> None:
    with pytest.raises(NoBlock, match="demo"):
        with_figures(OTHER, RESULTS)


def test_results_survive_their_document(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    file.write_text(document_text(RESULTS), "utf-8")
    assert read_results(file) == RESULTS


@pytest.mark.parametrize("topic", TOPICS)
def test_the_document_has_a_place_for_every_topic(topic: str) -> None:
    table = Table(topic, "t", ROWS)
    text = DOCUMENT.read_text("utf-8")
    assert f"<!-- figures: {topic} -->" in text
    with_figures(text, Results(1, "now", True, 1, MACHINE, (table,)))
