"""The embedding space: which model, made how, put a vector where it lies.

Two vectors may be compared only when their spaces are equal. This module knows nothing of models; it names them.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

from embedstore.errors import DamagedStoreError, SpaceMismatchError, spelt


@dataclass(frozen=True)
class Space:
    """An embedding space.

    Attributes
    ----------
    model : str
        Name of the model, such as ``"nomic-embed-v1.5"``, or a name of the user's own for foreign vectors.
    backend : str
        What ran it: ``"nomic-api"``, ``"fastembed"``, ``"onnxruntime"``, or ``"given"`` for foreign vectors.
    precision : str
        Number format of the weights, such as ``"float32"``, ``"fp16"`` or ``"int8"``; ``"float16"`` or ``"int8 as
        float16"`` for vectors that came back from Atlas, see `rounded`.
    preprocessing : str
        Version of the steps from picture to model input.
    dim : int
        Number of components of a vector.
    normalised : bool
        Whether vectors have unit length. Always true in a store.
    """

    model: str
    backend: str
    precision: str
    preprocessing: str
    dim: int
    normalised: bool = True

    @classmethod
    def given(cls, name: str, dim: int) -> Space:
        """Return the space of vectors that somebody else made, known by a name only."""
        return cls(name, backend="given", precision="float32", preprocessing="unknown", dim=dim)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Space:
        """Read a space from parsed JSON, ignoring fields of later versions; DamagedStoreError if one is missing."""
        names = [field.name for field in dataclasses.fields(cls)]
        try:
            return cls(**{name: fields[name] for name in names})
        except (KeyError, TypeError) as error:
            raise DamagedStoreError(f"an embedding space needs the fields {names}; found {fields!r}") from error

    @classmethod
    def from_text(cls, text: str) -> Space | None:
        """Find a space that was written into a text by `to_json`; None if there is none."""
        start = text.find('{"model"')
        if start < 0:
            return None
        try:
            return cls.from_dict(json.JSONDecoder().raw_decode(text[start:])[0])
        except (ValueError, DamagedStoreError):
            return None

    def rounded(self) -> Space:
        """Return the space of the same vectors after a way through float16, which moves scores by up to 5e-4.

        Examples
        --------
        >>> Space("m", "given", "float32", "unknown", 8).rounded().precision
        'float16'
        """
        precision = "float16" if self.precision == "float32" else f"{self.precision} as float16"
        done = self.precision.endswith("float16")
        return self if done else dataclasses.replace(self, precision=precision)

    def to_json(self) -> str:
        """Return the fields as one line of JSON."""
        return json.dumps(self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        return dataclasses.asdict(self)

    @property
    def key(self) -> str:
        """32 hex digits that are equal exactly when two spaces are equal."""
        import hashlib  # late: it loads OpenSSL, and a search by a vector asks for no key

        text = json.dumps(self.to_dict(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def __str__(self) -> str:
        return f"{self.model} ({self.backend}, {self.precision}, {self.preprocessing}, {self.dim}-d)"

    def same_model(self, other: Space) -> bool:
        """Tell whether `other` differs at most in what ran the model: backend, precision, preprocessing."""
        named = "given" not in (self.backend, other.backend)
        return named and (self.model, self.dim, self.normalised) == (other.model, other.dim, other.normalised)

    def takes(self, other: Space) -> bool:
        """Tell whether vectors of `other` belong here: the same space, or the exact vectors of a rounded one."""
        return self in (other, other.rounded())

    def require(self, other: Space, what: str) -> None:
        """Refuse vectors of another space by a SpaceMismatchError, which names both and what differs."""
        if self.takes(other):
            return
        ours, theirs = self.to_dict(), other.to_dict()
        differing = ", ".join(name for name in ours if ours[name] != theirs[name])
        advice = (
            "One model run in two ways gives vectors that are near, not equal: `embedstore compare-backends STORE` "
            f"measures how near, and {spelt('allow_mixed_backend=True', '`embedstore --allow-mixed-backend ...`')} "
            "allows it for queries"
            if self.same_model(other)
            else "Scores between them mean nothing; use the store's own model, or make a new store"
        )
        raise SpaceMismatchError(
            f"{what} is in the space {other}, this store in {self}: they differ in {differing}. {advice}."
        )
