import os
import stat
from pathlib import Path

import pytest

from daemon.wire.errors import Code, MlxdError
from daemon.wire.paths import find_home, make_private


def test_one_folder_for_everything() -> None:
    home = find_home({"MLXD_HOME": "/x", "HOME": "/home/u"}, "darwin")
    assert [str(path) for path in (home.root, home.config_file, home.events_dir, home.run_dir,
                                   home.logs_dir, home.cache_dir)] == [
        "/x", "/x/config.toml", "/x/events", "/x/run", "/x/logs", "/x/cache"]  # fmt: skip
    assert str(home.control_socket) == "/x/run/mlxd.sock"
    assert str(home.daemon_lock) == "/x/run/mlxd.lock"
    assert str(home.worker_lock("7")) == "/x/run/w-7.lock"
    assert str(home.worker_socket("7")) == "/x/run/w-7.sock"
    assert find_home({"MLXD_HOME": "~/m", "HOME": "/home/u"}, "linux").root == Path("/home/u/m")


def test_macos() -> None:
    home = find_home({"HOME": "/Users/u"}, "darwin")
    assert str(home.config_file) == "/Users/u/Library/Application Support/mlxd/config.toml"
    assert str(home.events_dir) == "/Users/u/Library/Application Support/mlxd/events"
    assert str(home.run_dir) == "/Users/u/Library/Application Support/mlxd/run"
    assert str(home.logs_dir) == "/Users/u/Library/Logs/mlxd"
    assert str(home.cache_dir) == "/Users/u/Library/Caches/mlxd"


def test_linux() -> None:
    home = find_home({"HOME": "/home/u"}, "linux")
    assert str(home.config_file) == "/home/u/.config/mlxd/config.toml"
    assert str(home.run_dir) == "/home/u/.local/state/mlxd/run"
    assert str(home.cache_dir) == "/home/u/.cache/mlxd"
    xdg = {
        "XDG_RUNTIME_DIR": "/run/user/1",
        "XDG_STATE_HOME": "/s",
        "XDG_CONFIG_HOME": "relative",
        "XDG_CACHE_HOME": "/c",
    }
    home = find_home({"HOME": "/home/u", **xdg}, "linux")
    assert str(home.run_dir) == "/run/user/1/mlxd"
    assert str(home.events_dir) == "/s/mlxd/events"
    assert str(home.config_file) == "/home/u/.config/mlxd/config.toml"
    assert str(home.cache_dir) == "/c/mlxd"


@pytest.mark.parametrize(
    ("environ", "hub_dir"),
    [
        ({"HOME": "/h"}, "/h/.cache/huggingface/hub"),
        ({"HOME": "/h", "XDG_CACHE_HOME": "/c"}, "/c/huggingface/hub"),
        ({"HOME": "/h", "HF_HOME": "/f"}, "/f/hub"),
        ({"HOME": "/h", "HF_HOME": "~/f"}, "/h/f/hub"),
        ({"HOME": "/h", "HF_HOME": "/f", "HF_HUB_CACHE": "/g"}, "/g"),
    ],
)
def test_hugging_face_cache(environ: dict[str, str], hub_dir: str) -> None:
    assert [str(path) for path in find_home(environ, "linux").hub_dirs] == [hub_dir]


@pytest.mark.parametrize(
    ("environ", "field"),
    [({"MLXD_HOME": "relative"}, "MLXD_HOME"), ({}, "HOME"), ({"HOME": "relative"}, "HOME")],
)
def test_a_home_that_cannot_be_found(environ: dict[str, str], field: str) -> None:
    with pytest.raises(MlxdError) as caught:
        find_home(environ, "linux")
    assert (caught.value.code, caught.value.fault.field) == (Code.INVALID_REQUEST, field)


def test_socket_paths_fit_everywhere() -> None:
    longest = "/" + "x" * (103 - len("//run/mlxd.sock"))
    assert len(str(find_home({"MLXD_HOME": longest}, "darwin").control_socket)) == 103
    with pytest.raises(MlxdError, match="set MLXD_HOME to a shorter folder") as caught:
        _ = find_home({"MLXD_HOME": longest + "x"}, "linux").control_socket
    assert "104 bytes" in caught.value.fault.message
    umlauts = "/" + "ü" * 50  # bytes count, not characters
    with pytest.raises(MlxdError):
        _ = find_home({"MLXD_HOME": umlauts}, "linux").control_socket


def test_private_folders_are_made_private(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        made = make_private(tmp_path / "a" / "b")
    finally:
        os.umask(before)
    assert stat.S_IMODE(made.stat().st_mode) == 0o700
    assert stat.S_IMODE(made.parent.stat().st_mode) == 0o700
    assert make_private(made) == made


@pytest.mark.parametrize("mode", [0o750, 0o701, 0o707])
def test_open_folders_are_refused(tmp_path: Path, mode: int) -> None:
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(mode)
    with pytest.raises(MlxdError, match=f"mode {mode:04o}.*chmod 700") as caught:
        make_private(folder)
    assert caught.value.fault.field == str(folder)


def test_what_is_not_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "broken").symlink_to(tmp_path / "gone")
    for path in (tmp_path / "file", tmp_path / "file" / "x", tmp_path / "broken"):
        with pytest.raises(MlxdError, match="cannot make the folder"):
            make_private(path)


def test_a_link_is_judged_by_where_it_leads(tmp_path: Path) -> None:
    private = make_private(tmp_path / "private")
    (tmp_path / "link").symlink_to(private)
    make_private(tmp_path / "link")
    private.chmod(0o755)
    with pytest.raises(MlxdError):
        make_private(tmp_path / "link")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_another_users_folder_is_refused(tmp_path: Path) -> None:
    folder = make_private(tmp_path / "theirs")
    os.chown(folder, 12_345, -1)
    with pytest.raises(MlxdError, match="belongs to user 12345"):
        make_private(folder)
