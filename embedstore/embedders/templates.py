"""Prompt templates: a bare word to the sentence that the text model reads better.

Turns ``"dog"`` into ``"a photo of a dog"``. The store keeps vectors of the finished sentence, so a template
needs no place of its own there.
"""

from __future__ import annotations

from embedstore.errors import QueryError

SLOT = "{}"


def apply_template(template: str | None, text: str) -> str:
    """Return `template` with `text` in the place of its one ``{}``; without a template, `text` itself.

    Any other character of the template stands for itself, braces too.

    Raises
    ------
    QueryError
        The template does not hold ``{}`` exactly once.

    Examples
    --------
    >>> apply_template("a photo of a {}", "dog")
    'a photo of a dog'
    >>> apply_template(None, "dog")
    'dog'
    """
    if template is None:
        return text
    found = template.count(SLOT)
    if found != 1:
        raise QueryError(
            f"a prompt template holds {SLOT} exactly once, where the text goes, as in 'a photo of a {{}}'; "
            f"found {found} in {template!r}"
        )
    return template.replace(SLOT, text)
