"""The document that ``--json`` prints."""

import json

from benchmarks.figures import Row, Table, Target, spread
from benchmarks.machine import read_machine
from benchmarks.results import Results, document


def test_the_document_says_where_each_row_stands() -> None:
    rows = (
        Row(what="a", unit="ms", ours=spread([3.0, 1.0]), target=Target(at_most=1, of="ours")),
        Row(what="b", unit="ms", ours=spread([3.0])),
    )
    table = Table("demo", "rows", rows, ("a note",))
    results = Results(1, "now", True, 2, read_machine(fast_blas=False), (table,))
    content = json.loads(json.dumps(document(results)))
    (shown,) = content["tables"]
    assert [row["verdict"] for row in shown["rows"]] == ["short", None]
    assert shown["rows"][0]["ours"] == {"median": 2.0, "low": 1.0, "high": 3.0, "samples": 2}
    assert shown["notes"] == ["a note"]
    assert content["machine"]["cores"] >= 1
    assert set(content["machine"]["packages"]) > {"mlx", "mlx-lm", "mlx-vlm"}
