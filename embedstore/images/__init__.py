"""Pictures in any form -> decoded, hashed, recognised (`decoding`); thumbnails, figures, contact sheets (`sheets`)."""

from embedstore.images.decoding import SUFFIXES, Picture, PictureSource, as_source, content_hash, is_image, read
from embedstore.images.sheets import contact_sheet, figure, thumbnail

__all__ = ["SUFFIXES", "Picture", "PictureSource", "as_source", "content_hash", "is_image", "read"]
__all__ += ["contact_sheet", "figure", "thumbnail"]
