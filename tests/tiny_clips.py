"""Small graphs with the interface of `clip`, `jina-clip` and `siglip2`, in the layout of the hub's cache.

Inputs, outputs and settings are those of the real repositories; the weights are noise. Each graph has more than one
output where the real one has, and tells a wrong choice, order, place or padding from the right one.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tiny_models import PREPROCESSOR, snapshot_folder, word_piece_tokenizer

CLIP_PICTURES, CLIP_TEXTS = "Qdrant/clip-ViT-B-32-vision", "Qdrant/clip-ViT-B-32-text"
JINA = "jinaai/jina-clip-v1"
SIGLIP2 = "onnx-community/siglip2-base-patch16-224-ONNX"
REPOSITORIES = {
    "clip": (CLIP_PICTURES, CLIP_TEXTS),
    "jina-clip": (JINA, JINA),
    "siglip2": (SIGLIP2, SIGLIP2),
}
GRAPHS = {
    "clip": ("model", "model"),
    "jina-clip": ("onnx/vision_model", "onnx/text_model"),
    "siglip2": ("onnx/vision_model", "onnx/text_model"),
}
DIMS = {"clip": 512, "jina-clip": 768, "siglip2": 768}
TOKENS = {"clip": 77, "jina-clip": 8192, "siglip2": 64}
SETTINGS: dict[str, dict[str, Any]] = {
    "clip": {**PREPROCESSOR, "size": {"shortest_edge": 224}},
    "jina-clip": {
        "image_processor_type": "JinaCLIPImageProcessor",
        "size": 224,
        "mean": PREPROCESSOR["image_mean"],
        "std": PREPROCESSOR["image_std"],
        "resize_mode": "shortest",
        "interpolation": "bicubic",
        "fill_color": 0,
    },
    "siglip2": {
        "image_processor_type": "SiglipImageProcessor",
        "do_resize": True,
        "do_rescale": True,
        "do_normalize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "resample": 2,
        "rescale_factor": 0.00392156862745098,
        "size": {"height": 224, "width": 224},
    },
}


def write_tiny_clip(cache: Path, name: str, suffix: str = "", half: bool = False, seed: int = 0) -> Path:
    """Write both towers of a model into `cache` and return it; `suffix` ends the names of the graphs.

    With `half` the graphs take and give half precision, as some exports do.
    """
    pictures, texts = (snapshot_folder(cache, repo) for repo in REPOSITORIES[name])
    tokenizer = word_piece_tokenizer()
    graphs = picture_graph(name, seed), text_graph(name, tokenizer.get_vocab_size(), seed)
    for folder, graph, file in zip((pictures, texts), graphs, GRAPHS[name], strict=True):
        onnx.save(_in_half(graph) if half else graph, folder / f"{file}{suffix}.onnx")
    (pictures / "preprocessor_config.json").write_text(json.dumps(SETTINGS[name]))
    tokenizer.save(str(texts / "tokenizer.json"))
    (texts / "tokenizer_config.json").write_text(json.dumps({"model_max_length": TOKENS[name], "pad_token": "[PAD]"}))
    return cache


def picture_graph(name: str, seed: int = 0) -> onnx.ModelProto:
    """Return a graph pixel_values (B, 3, 224, 224) -> one vector for each picture, last for `siglip2`."""
    rng = np.random.default_rng([seed, DIMS[name]])
    hidden = 32
    weights = {
        "patch": rng.normal(0, 0.05, (6, 3, 16, 16)),
        "widen": rng.normal(0, 0.7, (6, hidden)),
        "place": rng.normal(0.3, 0.7, (1, 196, hidden)),
        "project": rng.normal(0, 0.5, (hidden, DIMS[name])),
    }
    nodes = [
        helper.make_node("Conv", ["pixel_values", "patch"], ["patches"], strides=[16, 16]),
        helper.make_node("Reshape", ["patches", "flat"], ["grid"]),
        helper.make_node("Transpose", ["grid"], ["few"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["few", "widen"], ["wide"]),
        helper.make_node("Add", ["wide", "place"], ["placed"]),
        helper.make_node("Tanh", ["placed"], ["tokens"]),
        helper.make_node("ReduceMean", ["tokens"], ["mean"], axes=[1], keepdims=0),
        helper.make_node("MatMul", ["tokens", "project"], ["last_hidden_state"]),
        helper.make_node("MatMul", ["mean", "project"], ["pooled"]),
    ]
    inputs = [("pixel_values", TensorProto.FLOAT, ["batch", 3, 224, 224])]
    return _model(name, nodes, inputs, 196, weights, {"flat": np.array([0, 6, 196])})


def text_graph(name: str, vocabulary: int, seed: int = 0) -> onnx.ModelProto:
    """Return a graph of token ids (B, T) -> one vector for each text: its last place is pooled.

    `siglip2` takes no attention mask: what pads a text is seen, and decides.
    """
    rng = np.random.default_rng([seed, DIMS[name], 1])
    hidden = 32
    weights = {
        "words": rng.normal(0.1, 0.8, (vocabulary, hidden)),
        "place": rng.normal(0, 0.8, (TOKENS[name], hidden)),
        "project": rng.normal(0, 0.5, (hidden, DIMS[name])),
    }
    constants = {"zero": np.array(0), "one": np.array(1)}
    nodes = [
        helper.make_node("Gather", ["words", "input_ids"], ["word"]),
        helper.make_node("Shape", ["input_ids"], ["shape"]),
        helper.make_node("Gather", ["shape", "one"], ["length"]),
        helper.make_node("Range", ["zero", "length", "one"], ["positions"]),
        helper.make_node("Gather", ["place", "positions"], ["placed"]),
        helper.make_node("Add", ["word", "placed"], ["summed"]),
        helper.make_node("Tanh", ["summed"], ["tokens"]),
    ]
    inputs = [("input_ids", TensorProto.INT64, ["batch", "tokens"])]
    if name == "siglip2":
        nodes += [helper.make_node("ReduceMean", ["tokens"], ["mean"], axes=[1], keepdims=0)]
    else:
        constants |= {"last": np.array([2]), "along": np.array([1])}
        inputs.append(("attention_mask", TensorProto.INT64, ["batch", "tokens"]))
        nodes += [
            helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
            helper.make_node("Unsqueeze", ["mask", "last"], ["column"]),
            helper.make_node("Mul", ["tokens", "column"], ["seen"]),
            helper.make_node("ReduceSum", ["seen", "along"], ["total"], keepdims=0),
            helper.make_node("ReduceSum", ["column", "along"], ["count"], keepdims=0),
            helper.make_node("Div", ["total", "count"], ["mean"]),
        ]
    nodes += [
        helper.make_node("MatMul", ["tokens", "project"], ["last_hidden_state"]),
        helper.make_node("MatMul", ["mean", "project"], ["pooled"]),
    ]
    return _model(name, nodes, inputs, "tokens", weights, constants)


def _model(
    name: str,
    nodes: list[onnx.NodeProto],
    inputs: list[tuple[str, int, list[Any]]],
    tokens: int | str,
    weights: dict[str, Any],
    constants: dict[str, Any],
) -> onnx.ModelProto:
    """Assemble and check a graph: `siglip2` gives the hidden state first, the others their vector alone."""
    stored = [numpy_helper.from_array(array.astype(np.float32), key) for key, array in weights.items()]
    stored += [numpy_helper.from_array(array.astype(np.int64), key) for key, array in constants.items()]
    pooled = "pooler_output" if name == "siglip2" else "embeds"
    nodes.append(helper.make_node("Identity", ["pooled"], [pooled]))
    outputs = [helper.make_tensor_value_info(pooled, TensorProto.FLOAT, ["batch", DIMS[name]])]
    if name == "siglip2":
        shape = ["batch", tokens, DIMS[name]]
        outputs.insert(0, helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, shape))
    graph = helper.make_graph(
        nodes, name, [helper.make_tensor_value_info(*each) for each in inputs], outputs, initializer=stored
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    return model


def _in_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph with its pictures and vectors in half precision; it counts in single."""
    graph = model.graph
    for tensor in graph.input:
        if tensor.type.tensor_type.elem_type == TensorProto.FLOAT:
            graph.node.insert(0, helper.make_node("Cast", [tensor.name], [f"{tensor.name}_32"], to=TensorProto.FLOAT))
            for node in list(graph.node)[1:]:
                node.input[:] = [f"{tensor.name}_32" if name == tensor.name else name for name in node.input]
            tensor.type.tensor_type.elem_type = TensorProto.FLOAT16
    for tensor in graph.output:
        for node in graph.node:
            node.output[:] = [f"{tensor.name}_32" if name == tensor.name else name for name in node.output]
        graph.node.append(helper.make_node("Cast", [f"{tensor.name}_32"], [tensor.name], to=TensorProto.FLOAT16))
        tensor.type.tensor_type.elem_type = TensorProto.FLOAT16
    onnx.checker.check_model(model, full_check=True)
    return model
