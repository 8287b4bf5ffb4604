"""Pictures: decoded, or refused by place before a pixel is read."""

import io
from typing import Any

import pytest
from PIL import Image

from daemon.wire.data import ChatMessage, ImagePart, TextPart
from daemon.wire.errors import Code, MlxdError
from daemon.worker.engines.images import (
    decode_again,
    decode_images,
    decoded_ahead,
    has_images,
    image_files,
)


def encoded(image: Image.Image, format_: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format_, **options)
    return buffer.getvalue()


def said(*data: bytes) -> tuple[ChatMessage, ...]:
    system = ChatMessage(role="system", parts=(TextPart("Look."),))
    return (system, ChatMessage(role="user", parts=tuple(ImagePart(d) for d in data)))


def refusal(*data: bytes) -> MlxdError:
    with pytest.raises(MlxdError) as caught:
        decode_images(said(*data))
    assert caught.value.code is Code.INVALID_REQUEST
    return caught.value


RED = Image.new("RGB", (8, 4), (255, 0, 0))


@pytest.mark.parametrize("format_", ["PNG", "JPEG", "WEBP", "GIF"])
def test_the_four_formats_come_out_as_rgb_in_order(format_: str) -> None:
    other = Image.new("RGB", (3, 5), (0, 0, 255))
    first, second = decode_images(said(encoded(RED, format_), encoded(other, format_)))
    assert (first.mode, first.size, second.size) == ("RGB", (8, 4), (3, 5))
    red, green, blue = first.getpixel((2, 2))  # type: ignore[misc]
    assert (red > 240, green < 20, blue < 20) == (True, True, True)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "1", "CMYK", "I;16"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    image = Image.new(mode, (4, 4))
    data = encoded(image, "JPEG" if mode == "CMYK" else "PNG")
    assert decode_images(said(data))[0].mode == "RGB"


def test_the_cameras_orientation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    (turned,) = decode_images(said(encoded(RED, "JPEG", exif=exif)))
    assert turned.size == (4, 8)


@pytest.mark.parametrize("data", [b"", b"no picture", encoded(RED, "BMP"), encoded(RED, "TIFF")])
def test_other_formats_are_refused(data: bytes) -> None:
    error = refusal(encoded(RED), data)
    assert error.fault.field == "messages[1].content[1]"
    assert "PNG, JPEG, WEBP, GIF" in error.fault.message


@pytest.mark.parametrize("format_", ["PNG", "JPEG", "WEBP", "GIF"])
def test_a_file_cut_anywhere_is_refused_or_whole(format_: str) -> None:
    """Some decoders do not need a file's last bytes; no cut may raise anything untyped."""
    whole = encoded(Image.effect_noise((24, 24), 90).convert("RGB"), format_)
    for size in range(0, len(whole), max(1, len(whole) // 150)):
        try:
            (image,) = decode_images(said(whole[:size]))
        except MlxdError as error:
            assert error.code is Code.INVALID_REQUEST  # noqa: PT017  (either outcome is fine)
        else:
            assert image.size == (24, 24)
    assert "cut short" in refusal(whole[: len(whole) // 2]).fault.message


def test_a_bomb_is_refused_from_its_header() -> None:
    bomb = encoded(Image.new("1", (20_000, 20_000)))
    assert len(bomb) < 100_000
    assert "20000 x 20000" in refusal(bomb).fault.message


def test_pictures_are_bounded_together() -> None:
    large = encoded(Image.new("1", (8_000, 7_500)))
    error = refusal(large, large, large)
    assert error.fault.field == "messages[1].content[2]"
    assert "128 megapixels together" in error.fault.message


def test_what_was_decoded_ahead_comes_out_in_order_and_is_not_decoded_again() -> None:
    green = Image.new("RGB", (3, 5), (0, 255, 0))
    messages = said(encoded(RED), encoded(green))
    ahead = decoded_ahead((*messages, *said(encoded(RED))))
    assert has_images(messages)
    assert has_images(ahead)
    assert not has_images(messages[:1])
    assert not has_images(None)
    sizes = [image.size for image in decode_images(ahead)]
    assert sizes == [(8, 4), (3, 5), (8, 4)]
    once, again = decode_images(ahead), decode_images(ahead)
    assert all(image is same for image, same in zip(once, again, strict=True))


def test_files_stay_with_what_was_decoded_ahead_and_give_the_same_again() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    messages = (*said(encoded(RED)), *said(encoded(RED, "JPEG", exif=exif), encoded(RED, "GIF")))
    ahead = decoded_ahead(messages)
    assert image_files(ahead) == image_files(messages)
    again = decode_again(image_files(ahead))
    assert [image.tobytes() for image in again] == [
        image.tobytes() for image in decode_images(messages)
    ]
    assert [image.size for image in again] == [(8, 4), (4, 8), (8, 4)]
    assert image_files(None) == ()


def test_bounds_hold_for_what_is_decoded_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("daemon.worker.engines.images.REQUEST_PIXELS_MAX", 40)
    with pytest.raises(MlxdError, match="megapixels together") as caught:
        decoded_ahead(said(encoded(RED), encoded(RED)))
    assert caught.value.fault.field == "messages[1].content[1]"
