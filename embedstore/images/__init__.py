"""Pictures in any form -> decoded, hashed, recognised (`decoding`) as memory allows (`turns`); shown (`sheets`)."""

from embedstore.images.decoding import (
    SUFFIXES,
    Picture,
    PictureSource,
    as_source,
    content_hash,
    ending_of,
    file_content,
    is_image,
    read,
)
from embedstore.images.sheets import contact_sheet, figure, thumbnail

__all__ = ["SUFFIXES", "Picture", "PictureSource", "as_source", "content_hash", "ending_of", "file_content", "is_image"]
__all__ += ["contact_sheet", "figure", "read", "thumbnail"]
