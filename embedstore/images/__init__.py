"""Pictures: decode, hash, recognise; thumbnails and contact sheets. See `reading` and `sheets`."""

from embedstore.images.reading import (
    MAX_PIXELS,
    SUFFIXES,
    Picture,
    PictureSource,
    content_hash,
    decode,
    read,
)
from embedstore.images.sheets import contact_sheet, thumbnail

__all__ = [
    "MAX_PIXELS",
    "SUFFIXES",
    "Picture",
    "PictureSource",
    "contact_sheet",
    "content_hash",
    "decode",
    "read",
    "thumbnail",
]
