"""Worker processes over real sockets, with the fake engine: everything but the model."""

import fcntl
import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from daemon.identity import boot_id, process_start_time
from daemon.wire.control import Hello, Refusal
from daemon.wire.data import (
    Accepted,
    Bye,
    Delta,
    Done,
    Drain,
    Drained,
    Fail,
    Hosting,
    LoadFailed,
    LoadProgress,
    Ready,
    Retire,
    Running,
    StillBusy,
    UsageReport,
)
from daemon.wire.errors import Code
from tests.daemon.worker.harness import Client, Connection, Link, Worker, begin, running_worker
from tests.fakes.engine import (
    POISON_PREPARE,
    POISON_ROW,
    POISON_STEP,
    FakeConfig,
    write_fake_model,
)

SLOW = FakeConfig(reply="abc ", step_ms=2)


def model(run_dir: Path, **config: Any) -> Path:
    return write_fake_model(run_dir / "model", FakeConfig(**config))


def lock_is_free(path: Path) -> bool:
    with path.open("r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


# --- start ------------------------------------------------------------------------


def test_ready_means_locked_and_listening(worker: Worker) -> None:
    holder = json.loads(worker.lock_path.read_text())
    pid = worker.process.pid
    assert holder == {
        "worker": "1",
        "pid": pid,
        "start_time": process_start_time(pid),
        "boot_id": boot_id(),
    }
    assert not lock_is_free(worker.lock_path)
    assert stat.S_IMODE(worker.socket_path.stat().st_mode) == 0o600
    _, hosting = worker.link()
    assert hosting == Hosting(worker="1", pid=pid, phase="waiting")


def test_ready_is_all_that_standard_output_ever_says(worker: Worker, run_dir: Path) -> None:
    link = worker.load(model(run_dir))
    assert worker.process.stdout is not None
    assert worker.process.stdout.read() == b"", "standard output became standard error"
    link.send(Retire(reason="test"))
    assert worker.wait() == 0


def test_a_second_worker_of_that_id_is_turned_away(worker: Worker, run_dir: Path) -> None:
    command = [sys.executable, "-I", "-m", "tests.fakes.worker", "--worker", "1"]
    second = subprocess.run(
        [*command, "--run-dir", str(run_dir)], capture_output=True, check=False, timeout=20
    )
    assert second.returncode == 73
    assert second.stdout == b""
    assert b"is held by another process" in second.stderr
    worker.link()[0].close()


def test_a_stale_socket_is_replaced(run_dir: Path) -> None:
    with running_worker(run_dir) as first:
        first.process.kill()
        first.wait()
        assert first.socket_path.exists(), "killed, it could not tidy up"
    with running_worker(run_dir) as second:
        second.link()[0].close()


# --- spares -----------------------------------------------------------------------


@pytest.fixture
def spare(run_dir: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-I", "-m", "tests.fakes.worker", "--spare"]
    process = subprocess.Popen(
        [*command, "--run-dir", str(run_dir)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with process:
        yield process
        process.kill()


def test_a_spare_is_the_worker_that_it_is_told_to_be(
    spare: subprocess.Popen[bytes], run_dir: Path
) -> None:
    assert spare.stdin is not None
    assert spare.stdout is not None
    spare.stdin.write(b"7\n")
    spare.stdin.close()
    assert spare.stdout.readline() == b"ready\n"
    assert not lock_is_free(run_dir / "w-7.lock")
    with Link(run_dir / "w-7.sock") as link:
        link.send(Hello(role="daemon", client="test", pid=os.getpid(), generation=1))
        link.greeting()
        assert link.report() == Hosting(worker="7", pid=spare.pid, phase="waiting")
        link.send(begin(model(run_dir)))
        link.until(Ready)
        link.send(Retire(reason="test"))
        assert link.until(Bye) == Bye(reason="test")
    assert spare.wait(20) == 0


def test_a_spare_ends_with_what_it_listens_to(
    spare: subprocess.Popen[bytes], run_dir: Path
) -> None:
    assert spare.stdin is not None
    assert list(run_dir.iterdir()) == [], "nothing says that it is there"
    spare.stdin.close()
    assert spare.wait(20) == 0


# --- greeting ---------------------------------------------------------------------


def test_another_protocol_is_refused(worker: Worker) -> None:
    with Connection(worker.socket_path) as peer:
        peer.send(Hello(client="t", pid=1, protocol_min=98, protocol_max=99))
        refusal = peer.greeting()
        assert isinstance(refusal, Refusal)
        assert refusal.fault.code is Code.PROTOCOL_MISMATCH
        assert peer.payload() is None


@pytest.mark.parametrize(
    "data", [b"\0\0\0\x03abc", b"\0\0\0\x01\x80", b"\xff\xff\xff\xff"], ids=["junk", "map", "huge"]
)
def test_what_is_not_a_hello_is_refused(worker: Worker, data: bytes) -> None:
    with Connection(worker.socket_path) as peer:
        peer.sock.sendall(data)
        refusal = peer.greeting()
        assert isinstance(refusal, Refusal)
        assert refusal.fault.code is Code.INVALID_REQUEST
    worker.link()[0].close()


def test_connections_are_bounded(worker: Worker) -> None:
    peers = [Connection(worker.socket_path) for _ in range(257)]
    for peer in peers:
        peer.send(Hello(client="t", pid=1))
    codes = [
        answer.fault.code
        for answer in (peer.greeting() for peer in peers)
        if isinstance(answer, Refusal)
    ]
    for peer in peers:
        peer.close()
    assert codes == [Code.QUEUE_FULL]


def test_a_daemon_finds_room_where_clients_do_not(worker: Worker) -> None:
    for _ in range(256):
        worker.client()
    assert worker.link()[1].phase == "waiting"


# --- the link ----------------------------------------------------------------------


def test_an_older_daemon_is_refused_and_a_newer_one_takes_over(worker: Worker) -> None:
    first, _ = worker.link(generation=5)
    with Link(worker.socket_path) as older:
        older.send(Hello(role="daemon", client="t", pid=1, generation=4))
        refusal = older.greeting()
        assert isinstance(refusal, Refusal)
        assert refusal.fault.code is Code.CONFLICT
    second, hosting = worker.link(generation=6)
    assert hosting.phase == "waiting"
    assert first.report() is None, "the link that was replaced is closed"
    second.close()


def test_loading_reports_progress_then_ready(worker: Worker, run_dir: Path) -> None:
    link, _ = worker.link()
    folder = model(run_dir, load_ms=600, weights_bytes=1000)
    link.send(begin(folder, kv_tokens=700))
    reports = []
    while not isinstance(report := link.report(), Ready):
        reports.append(report)
    assert all(isinstance(r, LoadProgress) and r.total_bytes == 1000 for r in reports)
    done = [r.done_bytes for r in reports]
    assert done == sorted(done)
    assert 3 <= len(done) <= 8, "at most ten a second"
    assert report.context_tokens == 700
    assert report.measured_bytes == 1000
    assert 600 <= report.load_ms < 20_000
    _, hosting = worker.link(generation=2)
    assert (hosting.phase, hosting.path, hosting.context_tokens) == ("ready", str(folder), 700)


@pytest.mark.parametrize("reason", ["incompatible", "out_of_memory"])
def test_a_failed_load_says_why_and_exits(worker: Worker, run_dir: Path, reason: str) -> None:
    link, _ = worker.link()
    link.send(begin(model(run_dir, refuse=reason)))
    failed = link.until(LoadFailed)
    assert failed.reason == reason
    assert link.rest() == []
    assert worker.wait() == 1


def test_an_unknown_kind_is_incompatible(worker: Worker, run_dir: Path) -> None:
    link, _ = worker.link()
    link.send(begin(model(run_dir), kind="telepathy"))
    failed = link.until(LoadFailed)
    assert failed.reason == "incompatible"
    assert "telepathy" in failed.message


def test_an_unknown_command_is_passed_over(worker: Worker, run_dir: Path) -> None:
    link, _ = worker.link()
    link.send(Hello(client="a frame that is no command", pid=1))
    link.send(begin(model(run_dir)))
    assert link.until(Ready)


# --- requests ------------------------------------------------------------------------


def test_a_request_from_accepted_to_done_and_what_the_daemon_hears(
    worker: Worker, run_dir: Path
) -> None:
    link = worker.load(model(run_dir))
    client = worker.ask("hello world", max_tokens=100)
    assert client.answer() == Accepted(prompt_tokens=11)
    deltas = []
    while isinstance(frame := client.answer(), Delta):
        deltas.append(frame)
    assert "".join(delta.text for delta in deltas) == "hello world"
    assert len(deltas) == 11
    assert [delta.tokens for delta in deltas] == list(range(1, 12))
    assert isinstance(frame, Done)
    assert (frame.finish_reason, frame.usage.completion_tokens) == ("stop", 12)
    assert client.answer() is None
    assert link.report() == Running(running=1, leases=("lease-1",))
    usage = link.report()
    assert isinstance(usage, UsageReport)
    assert (usage.prompt_tokens, usage.completion_tokens) == (11, 12)
    assert link.report() == Running(running=0)


@pytest.mark.parametrize(
    ("payload", "field"),
    [
        ({"type": "generate", "lease": "l", "prompt": "x", "max_tokens": "many"}, "max_tokens"),
        ({"type": "generate", "prompt": "x"}, None),
        ({"type": "sing", "lease": "l"}, "type"),
        ([1, 2], None),
    ],
)
def test_a_malformed_request_is_refused(
    worker: Worker, run_dir: Path, payload: Any, field: str | None
) -> None:
    worker.load(model(run_dir))
    client = worker.client()
    client.send(payload)
    fail = client.answer()
    assert isinstance(fail, Fail)
    assert (fail.fault.code, fail.fault.field) == (Code.INVALID_REQUEST, field)
    assert client.answer() is None


def test_before_ready_a_request_is_told_to_acquire(worker: Worker) -> None:
    fail = worker.ask().answer()
    assert isinstance(fail, Fail)
    assert fail.fault.code is Code.BUSY


def test_closing_the_connection_cancels(worker: Worker, run_dir: Path) -> None:
    link = worker.load(write_fake_model(run_dir / "model", SLOW))
    client = worker.ask(max_tokens=5000)
    assert isinstance(client.answer(), Accepted)
    client.answer()
    assert link.report() == Running(running=1, leases=("lease-1",))
    client.close()
    usage = link.report()
    assert isinstance(usage, UsageReport)
    assert 0 < usage.completion_tokens < 5000
    assert link.report() == Running(running=0)


def test_a_client_that_does_not_read_is_cut_off(worker: Worker, run_dir: Path) -> None:
    link = worker.load(model(run_dir, reply="x", repeat=10_000))
    deaf = worker.ask(max_tokens=5000)
    link.until(UsageReport)
    text, terminal = "", deaf.answer()
    assert isinstance(terminal, Accepted)
    text, terminal = deaf.rest()
    assert isinstance(terminal, Fail)
    assert terminal.fault.code is Code.LAGGED
    assert 1 << 20 < len(text) < 4 << 20, "what was sent before stays true, and bounded"
    assert set(text) == {"x"}


@pytest.mark.parametrize("poison", [POISON_PREPARE, POISON_ROW])
def test_a_poisoned_request_fails_alone(worker: Worker, run_dir: Path, poison: str) -> None:
    worker.load(model(run_dir, step_ms=2))
    good = worker.ask("a long enough prompt to be echoed", max_tokens=100)
    assert isinstance(good.answer(), Accepted)
    _, terminal = skip_accepted(worker.ask(poison, max_tokens=100))
    assert isinstance(terminal, Fail)
    assert terminal.fault.code is Code.WORKER_FAILED
    assert poison in terminal.fault.message
    text, terminal = good.rest()
    assert text == "a long enough prompt to be echoed"
    assert isinstance(terminal, Done)


def test_a_failed_step_fails_its_rows_and_the_worker_goes_on(worker: Worker, run_dir: Path) -> None:
    worker.load(model(run_dir, step_ms=2))
    beside = worker.ask("somebody else in the same batch" * 20, max_tokens=2000)
    assert isinstance(beside.answer(), Accepted)
    assert isinstance(beside.answer(), Delta)
    _, poisoned = skip_accepted(worker.ask(POISON_STEP, max_tokens=100))
    _, terminal = beside.rest()
    for fail in (poisoned, terminal):
        assert isinstance(fail, Fail)
        assert fail.fault.code is Code.WORKER_FAILED
    assert skip_accepted(worker.ask("again", max_tokens=100))[0] == "again"


def skip_accepted(client: Client) -> tuple[str, Any]:
    first = client.answer()
    return client.rest() if isinstance(first, Accepted) else ("", first)


# --- draining and ending -----------------------------------------------------------------


def test_drain_waits_for_nobody(worker: Worker, run_dir: Path) -> None:
    link = worker.load(write_fake_model(run_dir / "model", SLOW))
    client = worker.ask(max_tokens=50)
    assert isinstance(client.answer(), Accepted)
    link.send(Drain())
    assert link.until(StillBusy) == StillBusy(running=1)
    assert isinstance(client.rest()[1], Done), "admission and the stream stayed open"
    assert link.until(Running).running == 0
    link.send(Drain())
    assert link.until(Drained)
    refused = worker.ask().answer()
    assert isinstance(refused, Fail)
    assert refused.fault.code is Code.BUSY
    assert "acquire it again" in refused.fault.message
    assert worker.link(generation=2)[1].phase == "draining"


def test_retire_lets_running_requests_finish(worker: Worker, run_dir: Path) -> None:
    link = worker.load(write_fake_model(run_dir / "model", SLOW))
    client = worker.ask(max_tokens=60)
    assert isinstance(client.answer(), Accepted)
    link.send(Retire(reason="evicted", grace_s=30))
    text, terminal = client.rest()
    assert len(text) == 60
    assert isinstance(terminal, Done)
    assert link.rest()[-1] == Bye(reason="evicted")
    assert worker.wait() == 0
    assert not worker.lock_path.exists()
    assert not worker.socket_path.exists()


def test_retire_fails_what_outlasts_the_grace(worker: Worker, run_dir: Path) -> None:
    link = worker.load(write_fake_model(run_dir / "model", SLOW))
    client = worker.ask(max_tokens=9000)
    assert isinstance(client.answer(), Accepted)
    link.send(Retire(reason="evicted", grace_s=0.1))
    _, terminal = client.rest()
    assert isinstance(terminal, Fail)
    assert terminal.fault.code is Code.SHUTTING_DOWN
    assert link.rest()[-1] == Bye(reason="evicted")
    assert worker.wait() == 0


def test_sigterm_in_mid_stream_ends_in_order(worker: Worker, run_dir: Path) -> None:
    link = worker.load(write_fake_model(run_dir / "model", SLOW))
    client = worker.ask(max_tokens=9000)
    assert isinstance(client.answer(), Accepted)
    worker.process.send_signal(signal.SIGTERM)
    assert isinstance(client.rest()[1], Fail)
    assert link.rest()[-1] == Bye(reason="terminated")
    assert worker.wait() == 0


def test_sigterm_wakes_an_idle_worker(worker: Worker) -> None:
    link, _ = worker.link()
    worker.process.send_signal(signal.SIGTERM)
    assert link.rest() == [Bye(reason="terminated")]
    assert worker.wait() == 0


@pytest.mark.parametrize("by_signal", [True, False])
def test_loading_can_be_called_off(worker: Worker, run_dir: Path, *, by_signal: bool) -> None:
    link, _ = worker.link()
    link.send(begin(model(run_dir, load_ms=60_000, load_steps=1000)))
    link.until(LoadProgress)
    if by_signal:
        worker.process.send_signal(signal.SIGTERM)
    else:
        link.send(Retire(reason="cancelled"))
    assert isinstance(link.rest()[-1], Bye)
    assert worker.wait() == 0


def test_a_killed_worker_leaves_no_terminal_frame_and_a_free_lock(
    worker: Worker, run_dir: Path
) -> None:
    link = worker.load(write_fake_model(run_dir / "model", SLOW))
    client = worker.ask(max_tokens=9000)
    assert isinstance(client.answer(), Accepted)
    worker.process.kill()
    assert client.rest()[1] is None
    assert not any(isinstance(report, Bye) for report in link.rest())
    assert worker.wait() == -signal.SIGKILL
    assert lock_is_free(worker.lock_path)


def test_a_crash_while_loading_ends_the_link_without_bye(worker: Worker, run_dir: Path) -> None:
    link, _ = worker.link()
    link.send(begin(model(run_dir, crash="load")))
    assert all(isinstance(report, LoadProgress) for report in link.rest())
    assert worker.wait() == -signal.SIGKILL


def test_a_new_daemon_adopts_in_mid_stream(worker: Worker, run_dir: Path) -> None:
    link = worker.load(write_fake_model(run_dir / "model", SLOW))
    client = worker.ask(max_tokens=400, lease="lease-7")
    assert isinstance(client.answer(), Accepted)
    link.close()
    adopter, hosting = worker.link(generation=2)
    assert (hosting.phase, hosting.running, hosting.leases) == ("ready", 1, ("lease-7",))
    text, terminal = client.rest()
    assert len(text) == 400
    assert isinstance(terminal, Done)
    assert adopter.until(UsageReport).completion_tokens == 400
    assert adopter.report() == Running(running=0)


def test_without_a_daemon_it_ends_itself_once_nothing_runs(worker: Worker, run_dir: Path) -> None:
    link = worker.load(write_fake_model(run_dir / "model", SLOW), detach_grace_s=0.1)
    client = worker.ask(max_tokens=200)
    assert isinstance(client.answer(), Accepted)
    link.close()
    text, terminal = client.rest()
    assert len(text) == 200, "far longer than the grace: what runs is not cut off"
    assert isinstance(terminal, Done)
    assert worker.wait() == 0
    assert not worker.socket_path.exists()


def test_probe_prints_one_line() -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-m", "daemon.worker", "--probe"],
        capture_output=True,
        check=True,
        timeout=60,
    )
    facts = json.loads(done.stdout)
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < facts["memory_size"] <= physical
    assert facts["backend"] in {"metal", "cuda", "cpu"}
    assert done.stdout.count(b"\n") == 1
