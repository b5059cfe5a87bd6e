"""Numbers of things and names of files -> how a person is told of them: ``1 part``, no control characters.

Every sentence with a number takes the word for what is counted from here, and every name that may hold anything is
quoted here before a person sees it. What programs read (JSON, CSV, paths in a pipe) is left as it is.
"""

from __future__ import annotations

import re

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]+")
"""What moves the cursor, breaks a line, turns the direction of writing, or is no character at all."""
_LETTERS = {7: "a", 8: "b", 9: "t", 10: "n", 11: "v", 12: "f", 13: "r"}


def counted(number: int, one: str, many: str = "") -> str:
    """Return a number with the word for one, or for several; the latter is `one` with an s where it is not given.

    >>> counted(1, "part"), counted(1200, "part"), counted(0, "match", "matches")
    ('1 part', '1,200 parts', '0 matches')
    """
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def quoted(name: str) -> str:
    r"""Return a name as it is, or, where it holds control characters, in the quotes of a shell, as ``ls`` does.

    What comes back is one line, and can be pasted into bash, zsh and ksh.

    >>> print(quoted("a b.jpg"), quoted("a\nb.jpg"))
    a b.jpg 'a'$'\n''b.jpg'
    """
    if not _CONTROL.search(name):
        return name
    text, end = "", 0
    for found in _CONTROL.finditer(name):
        text += _plain(name[end : found.start()]) if found.start() > end or not text else ""
        text += f"$'{_escaped(found[0])}'"
        end = found.end()
    return text + (_plain(name[end:]) if end < len(name) else "")


def one_line(text: str) -> str:
    r"""Return a text without control characters: ``\n`` for a line break, as a shell writes it."""
    return _CONTROL.sub(lambda found: _escaped(found[0]), text)


def _plain(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _escaped(text: str) -> str:
    """Write control characters with a letter, or with the octal digits of their bytes in UTF-8."""
    return "".join(
        f"\\{_LETTERS[byte]}" if byte in _LETTERS else f"\\{byte:03o}"
        for byte in text.encode("utf-8", "surrogateescape" if _is_of_bytes(text) else "surrogatepass")
    )


def _is_of_bytes(text: str) -> bool:
    """Tell whether the surrogates in a text are the bytes of a file name that is no UTF-8."""
    return all("\udc80" <= character <= "\udcff" for character in text if "\ud800" <= character <= "\udfff")
