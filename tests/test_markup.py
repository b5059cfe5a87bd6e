"""HTML for notebooks: well-formed, and nothing that a user wrote is markup."""

from __future__ import annotations

from html_pages import NASTY, Seen

from embedstore import markup


def test_every_text_is_shown_and_none_is_markup() -> None:
    """Headings, warnings, facts, heads and cells come out as they went in."""
    page = (
        markup.heading(NASTY, NASTY)
        + markup.warning(NASTY)
        + markup.facts([(NASTY, NASTY)])
        + markup.table((NASTY, "n"), [(NASTY, "1"), ("b", "2")], chosen=1)
    )
    seen = Seen(page)
    assert seen.open == []
    assert "script" not in seen.tags
    assert seen.text.count(NASTY) == 7
    assert [value for name, value in seen.attributes if name != "style"] == []
    assert seen.tags.count("tr") == 4
