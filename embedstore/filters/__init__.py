"""A ``where`` as people type it -> a mask over rows. The language is told in `language`."""

from embedstore.filters.where import Where, parse_where

__all__ = ["Where", "parse_where"]
