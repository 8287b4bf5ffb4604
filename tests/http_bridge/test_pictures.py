"""Pictures are bytes in base64, of four kinds, and nothing is ever fetched."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.wire.errors import MlxdError
from http_bridge.pictures import check_mime, read_base64, read_data_url


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("https://example.org/a.png", "only data: URLs"),
        ("http://127.0.0.1/a.png", "only data: URLs"),
        ("file:///etc/passwd", "only data: URLs"),
        ("/etc/passwd", "only data: URLs"),
        ("data:image/png;base64", "only data: URLs"),
        ("data:image/svg+xml;base64,AAAA", "'image/svg\\+xml' is not accepted"),
        ("data:;base64,AAAA", "'no type' is not accepted"),
        ("data:text/html,hello", "'text/html' is not accepted"),
        ("data:image/png,hello", "has to be base64"),
        ("data:image/png;base64,AAA", "not valid base64"),
        ("data:image/png;base64,AA\u00a0AA", "not valid base64"),
        ("data:image/png;name=a.png,AAAA", "has to be base64"),
        ("data:image/png;base64;name=a.png,AAAA", "has to be base64"),
        ("data:image/png;base64,\u00e4\u00e4\u00e4\u00e4", "not valid base64"),
        ("data:image/png;base64,", "holds no bytes"),
    ],
)
def test_other_pictures_are_refused(url: str, said: str) -> None:
    with pytest.raises(MlxdError, match=said) as caught:
        read_data_url(url, "messages[1].content[1].image_url.url")
    assert caught.value.fault.field == "messages[1].content[1].image_url.url"


@given(st.binary(min_size=1), st.sampled_from(["png", "jpeg", "webp", "gif", "PNG"]))
def test_a_data_url_gives_its_bytes_back(data: bytes, kind: str) -> None:
    url = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    assert read_data_url(url, "url") == data


@pytest.mark.parametrize(
    "head",
    [
        "data:image/png;charset=utf-8;base64,",
        "data:image/png;name=a.png;base64,",
        'DATA:image/PNG;name="a b";x=%20;BASE64,',
        "data:image/png;;base64,",
    ],
)
def test_parameters_of_a_data_url_change_nothing(head: str) -> None:
    assert read_data_url(f"{head}AAAA", "url") == b"\0\0\0"


@given(st.binary(min_size=1, max_size=300), st.sampled_from(["\n", "\r\n", " ", "\t", "\f"]))
def test_base64_may_be_broken_into_lines(data: bytes, between: str) -> None:
    lines = base64.encodebytes(data).decode().replace("\n", between)
    assert read_base64(lines, "f") == data
    assert read_data_url(f"data:image/png;base64,{lines}", "url") == data


def test_kinds_and_bytes_apart() -> None:
    check_mime("image/PNG", "f")
    assert read_base64("AAAA", "f") == b"\0\0\0"
    with pytest.raises(MlxdError, match="'image/bmp' is not accepted") as caught:
        check_mime("image/bmp", "source.media_type")
    assert caught.value.fault.field == "source.media_type"
    with pytest.raises(MlxdError, match="not valid base64"):
        read_base64("A", "f")
