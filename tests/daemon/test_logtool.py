"""``mlxd log``: verify, repair and export on real files."""

import gzip
import io
import json
import tarfile
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from daemon.eventlog.disk import OsDisk
from daemon.eventlog.log import EventLog
from daemon.eventlog.segment import scan_segment, segment_name
from daemon.logtool import log_group
from daemon.wire.paths import find_home
from tests.daemon.eventlog.samples import build, chain_by_hand


@pytest.fixture
def events(tmp_path: Path) -> Path:
    folder = tmp_path / "home" / "events"
    build(OsDisk(), folder, 20, segment_bytes_max=700)
    return folder


def run(*arguments: str | Path, home: Path | None = None) -> Result:
    obj = find_home({"MLXD_HOME": str(home), "HOME": "/nowhere"}, "linux") if home else None
    return CliRunner().invoke(log_group, [str(argument) for argument in arguments], obj=obj)


def harm(events: Path, segment: int = 1) -> Path:
    path = sorted(events.glob("*.jsonl"))[segment]
    path.write_bytes(path.read_bytes().replace(b'"at_ms"', b'"at_mS"', 1))
    return path


def test_a_sound_log_is_said_to_be_good(events: Path) -> None:
    result = run("verify", "--events", events)
    assert result.exit_code == 0
    assert result.output.startswith("20 records in ")
    answer = json.loads(run("verify", "--json", home=events.parent).output)
    assert (answer["v"], answer["records"], answer["damages"]) == (1, 20, [])


def test_damage_is_named_with_the_next_step_and_repaired(events: Path) -> None:
    path = harm(events)
    result = run("verify", "--events", events)
    assert result.exit_code == 1
    assert f"{path} is damaged at byte 0" in result.output
    assert "mlxd log repair" in result.output
    answer = json.loads(run("repair", "--json", "--events", events).output)
    assert answer["damage"]["file"] == str(path)
    assert f"{path.name}.damaged-1" in answer["set_aside"]
    assert run("verify", "--events", events).exit_code == 0
    assert run("repair", "--events", events).output == "nothing to repair\n"
    text = run("repair", "--events", harm(events, 0).parent).output
    assert "are no longer part of the log; they are kept in:\n  " in text


def test_what_a_repair_took_away_is_told_by_what_is_known(events: Path) -> None:
    last = max(events.glob("*.jsonl"))
    last.write_bytes(last.read_bytes() + b'{"seq":')
    torn = run("repair", "--events", events).output
    assert (
        "everything from record 21 on (7 bytes) is no longer part of the log; it is kept in:\n"
        f"  {last.name}.damaged-1\n"
    ) in torn
    for path in events.iterdir():
        path.unlink()
    (events / segment_name(1)).write_bytes(b"garbage\n")
    assert "everything from record 1 on (8 bytes)" in run("repair", "--events", events).output


def test_records_that_a_repair_took_away_are_named(events: Path) -> None:
    first = int(harm(events).stem)
    text = run("repair", "--events", events).output
    assert f"\nrecords {first} to 20 or later (" in text
    assert "are no longer part of the log; they are kept in:\n" in text


@pytest.mark.parametrize("verb", ["verify", "export", "repair"])
def test_a_folder_that_holds_no_log(tmp_path: Path, verb: str) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "notes.jsonl").write_text("{}\n")
    target = [tmp_path / "copy.jsonl"] if verb == "export" else []
    result = run(verb, *target, "--events", folder)
    assert result.exit_code == 4
    assert result.output == (
        f"mlxd: there is no event log in {folder}; name its folder with --events\n"
    )
    assert [path.name for path in folder.iterdir()] == ["notes.jsonl"]
    assert not (tmp_path / "copy.jsonl").exists()


def test_the_empty_log_of_a_fresh_service_is_good(tmp_path: Path) -> None:
    (tmp_path / "events").mkdir()
    result = run("verify", home=tmp_path)
    assert (result.exit_code, result.output) == (0, "0 records in 0 segments (0 B): good\n")


def test_a_torn_tail_is_left_to_the_daemon(events: Path) -> None:
    last = max(events.glob("*.jsonl"))
    last.write_bytes(last.read_bytes()[:-3])
    result = run("verify", "--events", events)
    assert result.exit_code == 1
    assert "the next start of mlxd sets the torn tail aside" in result.output


def test_export_to_lines_whose_chain_still_holds(events: Path, tmp_path: Path) -> None:
    target = tmp_path / "log.jsonl"
    result = run("export", target, "--events", events)
    assert result.exit_code == 0
    lines = target.read_bytes().splitlines()
    assert [json.loads(line)["seq"] for line in lines] == list(range(1, 21))
    chain = "0" * 32
    for line in lines:
        chain = chain_by_hand(chain, line)
        assert json.loads(line)["chain"] == chain
    assert target.stat().st_mode & 0o077 == 0
    assert scan_segment(OsDisk(), target, 1).last_seq == 20
    again = run("export", target, "--events", events)
    assert again.exit_code == 2
    assert "is there already" in again.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "log.jsonl"]


def test_export_to_an_archive_of_everything(events: Path, tmp_path: Path) -> None:
    harm(events)
    target = tmp_path / "log.tar.gz"
    result = run("export", "--json", target, "--events", events)
    assert result.exit_code == 1, "it is complete, but there is damage in it"
    answer = json.loads(result.output)
    assert len(answer["damages"]) == 1
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(target.read_bytes()))) as archive:
        for member in archive.getmembers():
            held = archive.extractfile(member)
            assert held is not None
            assert held.read() == (events.parent / member.name).read_bytes()
        assert len(archive.getmembers()) == answer["files"] == len(list(events.iterdir()))


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_a_target_whose_name_is_no_text(events: Path, tmp_path: Path, form: list[str]) -> None:
    result = run("export", tmp_path / "caf\udce9.jsonl", "--events", events, *form)
    assert (result.exit_code, result.exception) == (0, None)
    assert f"{tmp_path}/caf?.jsonl" in result.output
    assert (tmp_path / "caf\udce9.jsonl").exists()


def test_what_cannot_be_done_is_one_sentence(events: Path, tmp_path: Path) -> None:
    strange = run("export", tmp_path / "log.zip", "--events", events)
    assert (strange.exit_code, "should end in" in strange.output) == (2, True)
    nowhere = run("verify", "--events", tmp_path / "none")
    assert (nowhere.exit_code, "there is no event log" in nowhere.output) == (4, True)
    unnamed = run("verify")
    assert (unnamed.exit_code, "--events" in unnamed.output) == (2, True)
    unwritable = run("export", tmp_path / "no" / "log.jsonl", "--events", events)
    assert unwritable.exit_code == 2
    assert unwritable.output == (
        f"mlxd: {tmp_path / 'no' / 'log.jsonl.part'} cannot be made (No such file or directory); "
        "name another TARGET\n"
    )
    log, _ = EventLog.open(events, OsDisk())
    busy = run("repair", "--events", events)
    assert (busy.exit_code, "stop it first" in busy.output) == (6, True)
    log.close()
    assert (events / segment_name(1)).exists()
