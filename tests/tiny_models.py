"""Small ONNX graphs with the interface of the two Nomic v1.5 models, laid out as the hub's cache holds those.

The weights are random and mean nothing; names, types and shapes of inputs and outputs are those of the real
graphs, so that fastembed, onnxruntime and tokenizers run as they do in earnest. Every output depends on all
inputs and on its position, and padded positions are not zero: a wrong mask, order or pooling shows.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

VISION_REPO = "nomic-ai/nomic-embed-vision-v1.5"
TEXT_REPO = "nomic-ai/nomic-embed-text-v1.5"
MAX_TOKENS = 8192
HIDDEN = 768

# The settings that Nomic's vision repository gives for its pictures.
PREPROCESSOR = {
    "crop_size": {"height": 224, "width": 224},
    "do_center_crop": True,
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_processor_type": "CLIPImageProcessor",
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "resample": 3,
    "rescale_factor": 0.00392156862745098,
    "size": {"height": 224, "width": 224},
}


def write_tiny_models(cache: Path, quantised: bool = False, seed: int = 0, half: bool = False) -> Path:
    """Write both models into `cache` in the layout of the hub's cache and return `cache`.

    `quantised` writes what the ``-Q`` models load instead: the same graphs with weights in 8 bits and
    activations scaled at run time, as onnxruntime's own tool makes them. `half` rounds the weights to half precision,
    in files named so.
    """
    name = f"onnx/model{'_quantized' if quantised else '_fp16' if half else ''}.onnx"
    vision = snapshot_folder(cache, VISION_REPO)
    _write_graph(vision_graph(seed), vision / name, quantised, half)
    _write_json(vision / "preprocessor_config.json", PREPROCESSOR)
    _write_json(vision / "config.json", {"model_type": "nomic_bert"})

    text = snapshot_folder(cache, TEXT_REPO)
    tokenizer = word_piece_tokenizer()
    _write_graph(text_graph(tokenizer.get_vocab_size(), seed), text / name, quantised, half)
    tokenizer.save(str(text / "tokenizer.json"))
    _write_json(text / "tokenizer_config.json", {"model_max_length": MAX_TOKENS, "pad_token": "[PAD]"})
    _write_json(text / "config.json", {"model_type": "nomic_bert", "pad_token_id": 0})
    return cache


def snapshot_folder(cache: Path, repo: str, commit: str = "0" * 40) -> Path:
    """Return the folder of a repository's files inside the hub's cache, made and named as its main branch."""
    home = cache / ("models--" + repo.replace("/", "--"))
    (home / "refs").mkdir(parents=True, exist_ok=True)
    (home / "refs" / "main").write_text(commit)
    folder = home / "snapshots" / commit
    (folder / "onnx").mkdir(parents=True, exist_ok=True)
    return folder


def vision_graph(seed: int = 0) -> onnx.ModelProto:
    """Return a graph pixel_values (B, 3, 224, 224) -> last_hidden_state (B, 197, 768)."""
    rng = np.random.default_rng(seed)
    weights = {
        "patch": rng.normal(0, 0.05, (6, 3, 16, 16)),
        "widen": rng.normal(0, 0.7, (6, HIDDEN)),
        "place": rng.normal(0.3, 0.7, (1, 196, HIDDEN)),
        "mix": rng.normal(0, 1.0, (6, 6)),
    }
    constants = {"flat": np.array([0, 6, 196], dtype=np.int64)}
    nodes = [
        helper.make_node("Conv", ["pixel_values", "patch"], ["patches"], strides=[16, 16]),
        helper.make_node("Reshape", ["patches", "flat"], ["grid"]),
        helper.make_node("Transpose", ["grid"], ["few"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["few", "mix"], ["mixed"]),
        helper.make_node("MatMul", ["mixed", "widen"], ["wide"]),
        helper.make_node("Add", ["wide", "place"], ["placed"]),
        helper.make_node("Tanh", ["placed"], ["tokens"]),
        helper.make_node("ReduceMean", ["tokens"], ["cls"], axes=[1], keepdims=1),
        helper.make_node("Concat", ["cls", "tokens"], ["last_hidden_state"], axis=1),
    ]
    inputs = [("pixel_values", TensorProto.FLOAT, ["batch", 3, 224, 224])]
    return _model("tiny vision", nodes, inputs, 197, weights, constants)


def text_graph(vocabulary: int, seed: int = 0) -> onnx.ModelProto:
    """Return a graph input_ids, attention_mask, token_type_ids (B, T) -> last_hidden_state (B, T, 768)."""
    rng = np.random.default_rng(seed + 1)
    weights = {
        "words": rng.normal(0.1, 0.8, (vocabulary, HIDDEN)),
        "kinds": rng.normal(0, 0.8, (2, HIDDEN)),
        "place": rng.normal(0, 0.8, (MAX_TOKENS, 4)),
        "widen": rng.normal(0, 0.5, (4, HIDDEN)),
        "mix": rng.normal(0, 0.05, (HIDDEN, HIDDEN)),
    }
    constants = {
        "zero": np.array(0, dtype=np.int64),
        "one": np.array(1, dtype=np.int64),
        "last": np.array([2], dtype=np.int64),
        "along": np.array([1], dtype=np.int64),
    }
    nodes = [
        helper.make_node("Gather", ["words", "input_ids"], ["word"]),
        helper.make_node("Gather", ["kinds", "token_type_ids"], ["kind"]),
        helper.make_node("Shape", ["input_ids"], ["shape"]),
        helper.make_node("Gather", ["shape", "one"], ["length"]),
        helper.make_node("Range", ["zero", "length", "one"], ["positions"]),
        helper.make_node("Gather", ["place", "positions"], ["narrow"]),
        helper.make_node("MatMul", ["narrow", "widen"], ["placed"]),
        helper.make_node("Add", ["word", "kind"], ["named"]),
        helper.make_node("Add", ["named", "placed"], ["summed"]),
        helper.make_node("Tanh", ["summed"], ["tokens"]),
        # What the tokens that are not padding say together goes to every token, as attention does.
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["column"]),
        helper.make_node("Mul", ["tokens", "column"], ["seen"]),
        helper.make_node("ReduceSum", ["seen", "along"], ["total"], keepdims=1),
        helper.make_node("ReduceSum", ["column", "along"], ["count"], keepdims=1),
        helper.make_node("Div", ["total", "count"], ["mean"]),
        helper.make_node("MatMul", ["mean", "mix"], ["context"]),
        helper.make_node("Add", ["tokens", "context"], ["last_hidden_state"]),
    ]
    names = ("input_ids", "attention_mask", "token_type_ids")
    inputs = [(name, TensorProto.INT64, ["batch", "tokens"]) for name in names]
    return _model("tiny text", nodes, inputs, "tokens", weights, constants)


def word_piece_tokenizer() -> Tokenizer:
    """Return an uncased BERT tokenizer with a small vocabulary: some words, and letters for the rest."""
    words = ["search", "query", "the", "photo", "of", "cat", "dog", "tiny", "white", "ball", "bird", "red"]
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)] + list("0123456789")
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *("##" + letter for letter in letters)]
    pieces += [mark for mark in "_:.,!?-'" if mark not in pieces] + [word for word in words if word not in pieces]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])],
    )
    return tokenizer


def _model(
    name: str,
    nodes: list[onnx.NodeProto],
    inputs: list[tuple[str, int, list[Any]]],
    tokens: int | str,
    weights: dict[str, NDArray[np.float64]],
    constants: dict[str, NDArray[np.int64]],
) -> onnx.ModelProto:
    """Assemble and check one graph; weights are stored as float32."""
    stored = [numpy_helper.from_array(array.astype(np.float32), key) for key, array in weights.items()]
    stored += [numpy_helper.from_array(array, key) for key, array in constants.items()]
    output = helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, ["batch", tokens, HIDDEN])
    graph = helper.make_graph(
        nodes, name, [helper.make_tensor_value_info(*each) for each in inputs], [output], initializer=stored
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    return model


def _write_graph(model: onnx.ModelProto, path: Path, quantised: bool, half: bool) -> None:
    """Write a graph, in 8 bits when `quantised`, with weights that half precision holds when `half`."""
    for tensor in model.graph.initializer if half else ():
        if tensor.data_type == TensorProto.FLOAT:
            rounded = numpy_helper.to_array(tensor).astype(np.float16).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(rounded, tensor.name))
    onnx.save(model, path)
    if quantised:
        from onnxruntime.quantization import QuantType, quantize_dynamic  # slow to import

        quantize_dynamic(path, path, weight_type=QuantType.QUInt8, op_types_to_quantize=["MatMul"])


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=1))
