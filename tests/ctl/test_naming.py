"""Names and folders where a verb takes a MODEL."""

from pathlib import Path

import pytest

from ctl.naming import looks_like_folder, of_folder
from tests.ctl.views import known


@pytest.mark.parametrize("model", ["/m", "./m", "../m", "~/m", ".", "..", "~"])
def test_folders(model: str) -> None:
    assert looks_like_folder(model)


@pytest.mark.parametrize("model", ["m", "org/m", ".m", "~m", "m/.", ""])
def test_names(model: str) -> None:
    assert not looks_like_folder(model)


def test_a_folder_is_known_by_its_real_path(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "link").symlink_to("m")
    mine = known(name="mine", path=str(tmp_path / "m"))

    assert of_folder(str(tmp_path / "link"), (known(name="alias", path=""), mine)) == mine
    assert of_folder(str(tmp_path / "x" / ".." / "m"), (mine,)) == mine
    assert of_folder(str(tmp_path), (mine,)) is None
