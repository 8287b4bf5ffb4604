"""Running the real mlxd for offline work, from wherever mlxctl was started."""

import io
import os
from pathlib import Path

import pytest

from ctl.app import App
from ctl.mlxd import pass_through, run_mlxd
from daemon.wire.errors import Code


def app(home: Path, as_json: bool = False) -> tuple[App, io.StringIO, io.StringIO]:
    out, err = io.StringIO(), io.StringIO()
    made = App({"MLXD_HOME": str(home), "PATH": os.environ["PATH"]}, out, err)
    made.as_json = as_json
    return made, out, err


def test_what_mlxd_prints_is_the_result(tmp_path: Path) -> None:
    made, out, err = app(tmp_path)

    assert pass_through(made, "check") == 0
    assert out.getvalue() == f"there is no {tmp_path}/config.toml: all defaults\n"
    assert err.getvalue() == ""


def test_a_usage_error_of_mlxd_is_one_sentence(tmp_path: Path) -> None:
    made, _, _ = app(tmp_path)
    done = run_mlxd(made, "log", "export")

    assert done.code == 2
    assert done.fault is not None
    assert done.fault.code is Code.INVALID_REQUEST
    assert done.fault.message == "Missing argument 'TARGET'."


def test_a_folder_of_that_name_does_not_stand_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "daemon").mkdir()
    (tmp_path / "daemon" / "__init__.py").write_text("raise RuntimeError('another daemon')")
    (tmp_path / "daemon" / "__main__.py").touch()
    monkeypatch.chdir(tmp_path)
    made, out, _ = app(tmp_path)

    assert pass_through(made, "check") == 0
    assert "all defaults" in out.getvalue()
