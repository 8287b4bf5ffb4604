"""Pictures from clients: decoded within bounds, or refused by name before anything runs."""

import io
from collections.abc import Sequence
from typing import Final

import msgspec
from PIL import Image, ImageOps, UnidentifiedImageError

from daemon.wire.data import ChatMessage, ImagePart
from daemon.wire.errors import MlxdError
from daemon.worker.engines.conversation import invalid

FORMATS: Final = ("PNG", "JPEG", "WEBP", "GIF")
"""What the APIs document; every further decoder is further attack surface."""

PIXELS_MAX: Final = 64_000_000
"""One picture: above what phone cameras give (50 megapixels), and 192 MB once decoded."""

REQUEST_PIXELS_MAX: Final = 128_000_000
"""All pictures of one request."""

# Pillow warns at one size and fails at twice that; here one bound says the size by name.
Image.MAX_IMAGE_PIXELS = None


class DecodedPart(ImagePart, frozen=True):
    """A picture of a request, decoded before the model's thread sees it."""

    image: Image.Image


def has_images(messages: Sequence[ChatMessage] | None) -> bool:
    """Whether there are pictures in a conversation."""
    return any(isinstance(part, ImagePart) for one in messages or () for part in one.parts)


def decoded_ahead(messages: Sequence[ChatMessage]) -> tuple[ChatMessage, ...]:
    """The same conversation with its pictures decoded, for :func:`decode_images`.

    Touches nothing but its argument, so that any thread may do it.

    Raises:
        MlxdError: As :func:`decode_images`.
    """
    images = iter(decode_images(messages))
    return tuple(
        msgspec.structs.replace(
            message,
            parts=tuple(
                DecodedPart(part.data, next(images)) if isinstance(part, ImagePart) else part
                for part in message.parts
            ),
        )
        for message in messages
    )


def image_files(messages: Sequence[ChatMessage] | None) -> tuple[bytes, ...]:
    """Every picture of a conversation, in order, as it was sent."""
    parts = (part for one in messages or () for part in one.parts)
    return tuple(part.data for part in parts if isinstance(part, ImagePart))


def decode_again(files: Sequence[bytes]) -> list[Image.Image]:
    """What :func:`decode_images` gave for the pictures of these :func:`image_files`."""
    return [_decode(file, "messages") for file in files]


def decode_images(messages: Sequence[ChatMessage]) -> list[Image.Image]:
    """Every picture of a conversation, in order, upright and in RGB.

    Of an animation the first frame is taken. Size and format are checked from the header,
    before a pixel is decoded.

    Raises:
        MlxdError: ``invalid_request`` naming the picture's place.
    """
    images: list[Image.Image] = []
    pixels = 0
    for i, message in enumerate(messages):
        for j, part in enumerate(message.parts):
            if isinstance(part, ImagePart):
                field = f"messages[{i}].content[{j}]"
                image = part.image if isinstance(part, DecodedPart) else _decode(part.data, field)
                pixels += image.width * image.height
                if pixels > REQUEST_PIXELS_MAX:
                    raise invalid(
                        "the pictures of this request have more than "
                        f"{REQUEST_PIXELS_MAX // 1_000_000} megapixels together; send smaller "
                        "or fewer ones",
                        field,
                    )
                images.append(image)
    return images


def _decode(data: bytes, field: str) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        _check_size(image, field)
        image.load()
        return _upright(image)
    except MlxdError:
        raise
    except UnidentifiedImageError as error:
        raise invalid(
            f"the picture is none of {', '.join(FORMATS)}, or is cut short; convert it first", field
        ) from error
    except Exception as error:
        # Decoders raise whatever they like over damaged data: OSError, SyntaxError, …
        raise invalid(f"the picture is damaged or cut short: {error}", field) from error


def _upright(image: Image.Image) -> Image.Image:
    """As mlx_vlm prepares pictures itself: the camera's orientation applied, then RGB."""
    turned: Image.Image = ImageOps.exif_transpose(image)
    return turned.convert("RGB")


def _check_size(image: Image.Image, field: str) -> None:
    if image.width * image.height > PIXELS_MAX:
        raise invalid(
            f"the picture has {image.width} x {image.height} pixels; at most "
            f"{PIXELS_MAX // 1_000_000} megapixels are read, send a smaller one",
            field,
        )
