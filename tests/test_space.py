"""What makes two spaces equal, near or strangers, and how a space is written down and found again."""

from __future__ import annotations

import dataclasses

import pytest

from embedstore.errors import DamagedStoreError, SpaceMismatchError
from embedstore.space import Space

FLOAT = Space("nomic-embed-v1.5", "fastembed", "float32", "squash224-1", 768)
INT = dataclasses.replace(FLOAT, precision="int8")


def test_the_space_in_a_text() -> None:
    """A space is found again in a text that it was written into, and only there."""
    space = Space.given("mine", 8)
    assert Space.from_text(f"Some words. {space.to_json()} and more {{}}") == space
    assert Space.from_text("no space here") is None
    assert Space.from_text('{"model": "cut') is None
    assert Space.from_text('{"model": "of something else"}') is None
    assert space.rounded().rounded() == space.rounded()


def test_a_space_as_json_is_the_same_again() -> None:
    """Fields go and come; those of a later version are passed over, one that is missing is a damaged store."""
    assert Space.from_dict({**INT.to_dict(), "later": 1}) == INT
    short = INT.to_dict()
    del short["precision"]
    with pytest.raises(DamagedStoreError, match="precision"):
        Space.from_dict(short)
    with pytest.raises(DamagedStoreError, match="found None"):
        Space.from_dict(None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "same_model"),
    [
        ({"model": "other"}, False),
        ({"dim": 256}, False),
        ({"normalised": False}, False),
        ({"backend": "given"}, False),
        ({"backend": "nomic-api"}, True),
        ({"precision": "int8"}, True),
        ({"preprocessing": "squash224-2"}, True),
    ],
)
def test_spaces_that_differ_do_not_mix(change: dict[str, object], same_model: bool) -> None:
    """Vectors of a space that differs in any field are refused with both named, and advice that suits the field."""
    other = dataclasses.replace(FLOAT, **change)  # type: ignore[arg-type]
    assert FLOAT.key != other.key
    assert FLOAT.same_model(other) is other.same_model(FLOAT) is same_model
    with pytest.raises(SpaceMismatchError, match=f"differ in {next(iter(change))}") as caught:
        FLOAT.require(other, "the query")
    assert str(FLOAT) in str(caught.value)
    assert str(other) in str(caught.value)
    assert ("compare-backends" in str(caught.value)) is same_model


def test_exact_vectors_belong_into_a_rounded_space_and_not_the_other_way() -> None:
    """What came back from Atlas may be searched with the model's own vectors; a store of those takes none rounded."""
    rounded = FLOAT.rounded()
    assert (rounded.precision, INT.rounded().precision) == ("float16", "int8 as float16")
    rounded.require(FLOAT, "the query")
    FLOAT.require(FLOAT, "the query")
    with pytest.raises(SpaceMismatchError, match="precision"):
        FLOAT.require(rounded, "what came down")


def test_equal_spaces_have_equal_keys() -> None:
    """The key is 32 hex digits that follow from the fields alone."""
    assert Space(**FLOAT.to_dict()).key == FLOAT.key
    assert len(FLOAT.key) == 32
    assert int(FLOAT.key, 16) >= 0
