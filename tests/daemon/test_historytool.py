"""``mlxd history`` on a real log's files."""

import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from daemon.eventlog.disk import OsDisk
from daemon.eventlog.log import EventLog
from daemon.historytool import history_group
from daemon.pool import messages as m
from daemon.pool.evolve import evolve
from daemon.pool.messages import Cause
from daemon.pool.state import STATE_VERSION, Pool
from daemon.wire.paths import find_home
from tests.daemon.test_history import EVENTS, GB, T0


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A home whose log is open for writing, as beside a daemon."""
    log, _ = EventLog.open(tmp_path / "events", OsDisk())
    for number, event in enumerate(EVENTS, 1):
        log.append(T0 + number * 10_000, Cause(command="x"), (event,))
    log.commit(sync=True)
    yield tmp_path
    log.close()


def run(home: Path, *arguments: str) -> Result:
    obj = find_home({"MLXD_HOME": str(home), "HOME": "/nowhere"}, "linux")
    return CliRunner().invoke(history_group, list(arguments), obj=obj)


def write_log(home: Path, snapshots: Mapping[int, Callable[[Pool], Pool]]) -> None:
    """A log of ``EVENTS``, with snapshots of what is made of the pool after the named records.

    What snapshots tell wrongly on purpose shows that they are read.
    """
    pool = Pool(limits=m.Limits(budget_bytes=0))
    log, _ = EventLog.open(home / "events", OsDisk())
    for number, event in enumerate(EVENTS, 1):
        log.append(T0 + number * 10_000, Cause(command="x"), (event,))
        log.commit(sync=True)
        pool = evolve(pool, event, T0 + number * 10_000)
        if number in snapshots:
            state = msgspec.msgpack.encode(snapshots[number](pool))
            log.write_snapshot(log.position, state, STATE_VERSION)
    log.close()


def test_at_a_record_beside_a_writer(home: Path) -> None:
    before = {path.name: path.read_bytes() for path in (home / "events").iterdir()}
    result = run(home, "at", "3", "--json")

    assert result.exit_code == 0, result.output
    shape = json.loads(result.output)
    assert next(iter(shape)) == "v"
    assert not {"type", "id"} & shape.keys()
    assert (shape["v"], shape["seq"], shape["home"]) == (1, 3, str(home))
    assert [model["state"] for model in shape["models"]] == ["idle"]
    assert {path.name: path.read_bytes() for path in (home / "events").iterdir()} == before


@pytest.mark.parametrize(("place", "generation"), [("2", 7), ("3", 99), ("5", 99)])
def test_it_begins_with_the_newest_snapshot_that_lies_before(
    tmp_path: Path, place: str, generation: int
) -> None:
    snapshots = {at: partial(msgspec.structs.replace, generation=96 + at) for at in (3, 6)}
    write_log(tmp_path, snapshots)

    for asked in (place, str(T0 + int(place) * 10_000 + 5_000)):
        shape = json.loads(run(tmp_path, "at", asked).output)
        assert (shape["seq"], shape["generation"]) == (int(place), generation)
        assert (shape["pid"], shape["version"], shape["started_at_ms"]) == (
            812, "0.1.0", T0 + 10_000,
        )  # fmt: skip


@pytest.mark.parametrize(("after", "budget_bytes"), [(2, 10 * GB), (3, 5 * GB), (4, 5 * GB)])
def test_a_film_begins_with_the_newest_snapshot_that_lies_before(
    tmp_path: Path, after: int, budget_bytes: int
) -> None:
    limits = m.Limits(budget_bytes=5 * GB)
    write_log(tmp_path, {3: partial(msgspec.structs.replace, limits=limits)})

    lines = run(tmp_path, "film", "--after", str(after)).output.splitlines()
    stills = [json.loads(line) for line in lines]
    assert [still["seq"] for still in stills] == list(range(after + 1, 7))
    assert stills[0]["budget_bytes"] == budget_bytes


def test_at_a_moment(home: Path) -> None:
    assert json.loads(run(home, "at", str(T0 + 25_000)).output)["seq"] == 2


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["at", "99"], 4, "mlxd: the event log holds records 1 to 6, and not 99\n"),
        (["at", "soon"], 2, "mlxd: 'soon' is not a moment;"),
        (["at", "0001-01-01"], 4, "mlxd: the event log begins later than that\n"),
        (["at", "9000-01-01"], 4, "mlxd: '9000-01-01' has not come yet;"),
    ],
)
def test_what_cannot_be_told(home: Path, arguments: list[str], code: int, said: str) -> None:
    result = run(home, *arguments)

    assert result.exit_code == code
    assert result.output.startswith(said)


def test_since_the_first_day_of_the_calendar_is_all(home: Path) -> None:
    result = run(home, "simulate", "--since", "0001-01-01")

    assert (result.exit_code, result.output) == (0, run(home, "simulate").output)


def test_what_cannot_be_read_is_told(home: Path, tmp_path: Path) -> None:
    segment = max((home / "events").glob("*.jsonl"))
    harmed = tmp_path / "harmed"
    (harmed / "events").mkdir(parents=True)
    text = segment.read_bytes().replace(b'"seq":4,"at_ms":1', b'"seq":4,"at_ms":2', 1)
    (harmed / "events" / segment.name).write_bytes(text)
    said = "from record 4 on the event log cannot be read ("

    for asked in (("at", "3"), ("simulate",)):
        whole, cut = run(home, *asked), run(harmed, *asked)
        assert (whole.exit_code, whole.stderr, cut.exit_code) == (0, "", 0)
        assert cut.stderr.startswith(f"mlxd: {said}")
        assert cut.stderr.endswith("), and is left out; all of the damage: mlxctl log verify\n")
        assert json.loads(whole.stdout)["damage"] is None
        assert json.loads(cut.stdout)["damage"]["seq"] == 4
    beyond = run(harmed, "at", "5")
    assert (beyond.exit_code, beyond.stdout) == (4, "")
    assert beyond.stderr.startswith(
        f"mlxd: the event log holds records 1 to 3, and not 5; {said}"
    ), "one failure is one sentence"
    assert run(harmed, "simulate", "--policy", "fifo").stderr.count(said) == 0


def test_no_log_and_a_damaged_one(home: Path, tmp_path: Path) -> None:
    segment = max((home / "events").glob("*.jsonl"))
    harmed = tmp_path / "harmed"
    (harmed / "events").mkdir(parents=True)
    text = segment.read_bytes().replace(b'"at_ms"', b'"at_mS"', 1) + b"x" * (1 << 17)
    (harmed / "events" / segment.name).write_bytes(text)

    assert run(tmp_path / "none", "at", "1").exit_code == 4
    damaged = run(harmed, "at", "1")
    assert damaged.exit_code == 1
    assert "mlxd: " in damaged.output
