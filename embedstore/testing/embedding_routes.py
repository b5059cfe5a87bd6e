"""The two embedding endpoints of Nomic's service: from a `Request` to vectors, in the real server's words.

Vectors come from `features`. What was embedded is handed to a function with whether the answer got through.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.testing import features
from embedstore.testing.faults import Faults
from embedstore.testing.refusals import Refused, invalid
from embedstore.testing.wire import Reply, Request

TEXT_MODELS = ("nomic-embed-text-v1", "nomic-embed-text-v1.5")
IMAGE_MODELS = ("nomic-embed-vision-v1", "nomic-embed-vision-v1.5")
TASKS = ("search_query", "search_document", "classification", "clustering")

Settle = Callable[[Sequence[str], bool], None]
"""Takes what was embedded, and whether the answer got through."""


def embed_texts(request: Request, settle: Settle) -> Reply:
    """Answer POST /v1/embedding/text."""
    try:
        fields = request.json()
    except ValueError as error:
        raise Refused(422, [invalid("body", f"Invalid JSON: {error}", "value_error.jsondecode")]) from error
    texts = fields.get("texts")
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise Refused(422, [invalid("texts", "value is not a valid list of strings", "type_error.list")])
    model = _chosen(fields.get("model", TEXT_MODELS[0]), "model", TEXT_MODELS)
    _chosen(fields.get("task_type", "search_document"), "task_type", TASKS)
    vectors = np.array([features.text_vector(text) for text in texts]).reshape(-1, features.DIM)
    dim = fields.get("dimensionality")
    if dim is not None:
        vectors = vectors[:, :dim] / np.linalg.norm(vectors[:, :dim], axis=1, keepdims=True)
    tokens = sum(len(text.split()) for text in texts)
    return _embeddings(vectors, model, tokens, lambda delivered: settle(texts, delivered))


def embed_images(request: Request, pictures: dict[str, bytes], faults: Faults, settle: Settle) -> Reply:
    """Answer POST /v1/embedding/image, with files or with URLs that are among `pictures`."""
    try:
        fields = request.form()
    except ValueError as error:
        raise Refused(422, [invalid("body", str(error), "value_error")]) from error
    named = [value.decode() for name, value in fields if name == "model"]
    model = _chosen(named[0] if named else IMAGE_MODELS[0], "model", IMAGE_MODELS)
    files = [value for name, value in fields if name == "images"]
    for url in (value.decode() for name, value in fields if name == "urls"):
        if url not in pictures:
            raise Refused(400, f"Could not fetch image: {url}")
        files.append(pictures[url])
    if not files:
        raise Refused(422, [invalid("images", "field required", "value_error.missing")])
    contents, vectors = zip(*(_embed_image(file, faults) for file in files), strict=True)
    return _embeddings(np.array(vectors), model, len(files), lambda delivered: settle(contents, delivered))


def _embed_image(file: bytes, faults: Faults) -> tuple[str, NDArray[np.float32]]:
    """Return a picture's name in the counts, and its vector."""
    try:
        pixels = features.decode_pixels(file)
    except ValueError as error:
        raise Refused(400, f"Invalid image: {error}") from error
    status = faults.refusal(pixels)
    if status is not None:
        raise Refused(status, "Invalid image")
    return features.content_of(pixels), features.image_vector(pixels)


def _chosen(value: Any, name: str, permitted: tuple[str, ...]) -> str:
    """Return `value` if it is permitted; refuse it as the real server does if not."""
    if value in permitted:
        return str(value)
    among = ", ".join(f"'{choice}'" for choice in permitted)
    text = f"value is not a valid enumeration member; permitted: {among}"
    raise Refused(422, [{**invalid(name, text, "type_error.enum"), "ctx": {"enum_values": list(permitted)}}])


def _embeddings(
    vectors: NDArray[np.float32], model: str, tokens: int, settle: Callable[[bool], None]
) -> Reply:
    """Return the answer of an embedding route."""
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return Reply({"embeddings": vectors.tolist(), "usage": usage, "model": model}, settle=settle)
