"""What goes to which stream, and in which form."""

import io
import json

from ctl.app import App
from ctl.blocks import Line
from daemon.wire.errors import Code, Fault


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_hint_stands_below_its_message_unless_the_message_says_it() -> None:
    err = io.StringIO()
    app = App({}, io.StringIO(), err)

    app.fail(Fault(code=Code.BUSY, message="no room", hint="unload a model"))
    app.fail(Fault(code=Code.BUSY, message="no room; unload a model", hint="unload a model"))

    assert err.getvalue() == (
        "mlxctl: no room\n  hint: unload a model\nmlxctl: no room; unload a model\n"
    )


def test_a_failure_as_json_keeps_every_field() -> None:
    err = io.StringIO()
    app = App({}, io.StringIO(), err)
    app.as_json = True
    app.fail(Fault(code=Code.BUSY, message="no room", field="model", retry_after_ms=1500))

    assert json.loads(err.getvalue()) == {
        "v": 1,
        "error": {"code": "busy", "message": "no room", "field": "model", "retry_after_ms": 1500},
    }


def test_control_codes_reach_a_pipe_and_no_terminal() -> None:
    pipe, terminal = io.StringIO(), Terminal()
    App({}, pipe, io.StringIO()).write("\x1b[2Jx")
    App({"TERM": "xterm"}, terminal, io.StringIO()).write("\x1b[2Jx")

    assert pipe.getvalue() == "\x1b[2Jx"
    assert terminal.getvalue() == "\ufffd[2Jx"


def test_asides_are_for_eyes_only() -> None:
    pipe, terminal, plain = io.StringIO(), Terminal(), Terminal()
    App({}, io.StringIO(), pipe).note_dim("hm")
    App({"TERM": "xterm"}, io.StringIO(), terminal).note_dim("hm")
    App({"TERM": "xterm", "NO_COLOR": "1"}, io.StringIO(), plain).note_dim("hm")

    assert (pipe.getvalue(), terminal.getvalue(), plain.getvalue()) == (
        "",
        "\x1b[2mhm\x1b[0m",
        "hm",
    )


def test_a_page_in_a_pipe() -> None:
    out = io.StringIO()
    app = App({}, out, io.StringIO())
    app.show(Line("hello", "bad"))

    assert out.getvalue() == "hello\n"
    assert app.width is None
