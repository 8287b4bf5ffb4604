"""Pictures in requests: always their bytes in base64, never an address. Pure."""

import binascii
import re
from typing import Final

from http_bridge.errors import refuse

_DATA_URL: Final = re.compile(
    r"data:(?P<mime>[^;,]*)(?:;[^;,]*)*?(?P<base64>;base64)?,", re.IGNORECASE
)
_HEAD_CHARS: Final = 1024
_SPACE: Final = re.compile(r"[ \t\n\f\r]+")
_MIMES: Final = frozenset({"image/png", "image/jpeg", "image/jpg", "image/webp", "image/gif"})


def read_data_url(url: str, field: str) -> bytes:
    """The picture file in a base64 ``data:`` URL (RFC 2397); nothing is ever fetched.

    Parameters, such as a charset, say nothing about a picture.

    Raises:
        MlxdError: ``invalid_request`` naming ``field``: another scheme, another kind of
            content than PNG, JPEG, WebP and GIF, or text that is not base64.
    """
    found = _DATA_URL.match(url, 0, _HEAD_CHARS)
    if found is None:
        shown = url[:32] + ("…" if len(url) > 32 else "")
        raise refuse(
            field,
            f"only data: URLs are accepted (data:image/png;base64,…), not {shown!r}; "
            "read the picture and send its bytes",
        )
    check_mime(found["mime"], field)
    if not found["base64"]:
        raise refuse(field, "a picture has to be base64: data:image/png;base64,…")
    return read_base64(url[found.end() :], field)


def check_mime(mime: str, field: str) -> None:
    """Refuse kinds of pictures that no worker decodes.

    Raises:
        MlxdError: ``invalid_request`` naming ``field``.
    """
    if mime.lower() not in _MIMES:
        raise refuse(
            field,
            f"{mime or 'no type'!r} is not accepted; send image/png, image/jpeg, "
            "image/webp or image/gif",
        )


def read_base64(text: str, field: str) -> bytes:
    """The bytes of a picture; line ends and other blanks between them do not count.

    Raises:
        MlxdError: ``invalid_request`` naming ``field``: not base64, or nothing at all.
    """
    try:
        data = _decoded(text)
    except ValueError as error:
        reason = str(error).rstrip(".").lower()
        raise refuse(field, f"not valid base64 ({reason}); encode the picture again") from error
    if not data:
        raise refuse(field, "holds no bytes; send a picture")
    return data


def _decoded(text: str) -> bytes:
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except ValueError:
        # Few encoders make lines, so that the others need not pay for looking.
        return binascii.a2b_base64(_SPACE.sub("", text), strict_mode=True)
