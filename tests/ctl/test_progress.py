"""The progress of a load, for whoever wants it in whichever form."""

import io
import json

from ctl.app import App
from ctl.progress import describe, describe_amount, shown_progress
from daemon.wire import control as c

LOADING = c.Progress(
    id=3, model="tiny", phase="loading", done_bytes=269_000_000, total_bytes=538_000_000
)
QUEUED = c.Progress(id=3, model="tiny", phase="queued", total_bytes=538_000_000)


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def app_with(err: io.StringIO) -> App:
    return App({}, io.StringIO(), err)


def test_nothing_in_a_pipe_unless_asked_for() -> None:
    err = io.StringIO()
    with shown_progress(app_with(err)) as on_progress:
        on_progress(LOADING)

    assert err.getvalue() == ""


def test_a_terminal_gets_a_bar_unless_json_is_wanted() -> None:
    for as_json in (False, True):
        err = Terminal()
        app = App({"TERM": "xterm"}, io.StringIO(), err)
        app.as_json = as_json
        with shown_progress(app) as on_progress:
            on_progress(LOADING)

        assert bool(err.getvalue()) is not as_json


def test_a_terminal_is_left_alone_while_there_is_no_load() -> None:
    err = Terminal()
    with shown_progress(App({"TERM": "xterm"}, io.StringIO(), err)):
        pass

    assert err.getvalue() == ""


def test_json_lines() -> None:
    err = io.StringIO()
    with shown_progress(app_with(err), "json") as on_progress:
        on_progress(QUEUED)
        on_progress(LOADING)

    steps = [json.loads(line) for line in err.getvalue().splitlines()]
    assert [step["v"] for step in steps] == [1, 1]
    assert steps[1]["progress"] == {
        "model": "tiny",
        "phase": "loading",
        "done_bytes": 269_000_000,
        "total_bytes": 538_000_000,
        "eta_ms": None,
    }


def test_words() -> None:
    assert describe(QUEUED) == "tiny waits for its turn"
    assert describe(LOADING) == "loading tiny"
    assert describe_amount(QUEUED) == ""
    assert describe_amount(LOADING) == "269 MB of 538 MB"
