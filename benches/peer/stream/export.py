"""Writes a model bundle's network as ONNX: images in, patch anomalies and shallow features out.

    export.py BUNDLE FILE

The operators are those that PyTorch's exporter gives for the same network, layer norm and GELU as one
operator each, so that ONNX Runtime can do what it does best. Only the forms of the shipped bundle are
known; any other is refused.
"""

import math
import sys
import tomllib
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file

OPSET = 20
EXPECTED = {
    "prior": "off",
    "amplification": "after",
    "amplification_softmax": "heads",
    "amplification_attention": "softmax",
    "amplification_scope": "view",
    "amplification_strength": "fixed",
    "target": "plain",
}


class Graph:
    """ONNX nodes as they are added, each named after its output."""

    def __init__(self, tensors):
        self.tensors = tensors
        self.nodes, self.initializers, self.named = [], [], set()

    def add(self, operator, *inputs, **attributes):
        output = f"{operator}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [output], **attributes))
        return output

    def constant(self, values, dtype=np.float32):
        name = f"constant_{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def weight(self, name, transposed=False):
        known = f"{name}.transposed" if transposed else name
        if known not in self.named:
            values = self.tensors[name].astype(np.float32)
            values = np.ascontiguousarray(values.T) if transposed else values
            self.initializers.append(numpy_helper.from_array(values, known))
            self.named.add(known)
        return known

    def linear(self, tokens, name):
        product = self.add("MatMul", tokens, self.weight(f"{name}.weight", transposed=True))
        return self.add("Add", product, self.weight(f"{name}.bias"))

    def norm(self, tokens, name, epsilon):
        weights = self.weight(f"{name}.weight"), self.weight(f"{name}.bias")
        return self.add("LayerNormalization", tokens, *weights, axis=-1, epsilon=epsilon)

    def reshape(self, tensor, shape):
        return self.add("Reshape", tensor, self.constant(shape, np.int64))

    def mean(self, tensors):
        return self.add("Mean", *tensors)

    def heads(self, projected, parts, width, heads):
        """`parts` tensors `[batch, heads, tokens, width / heads]` of one projection."""
        split = self.reshape(projected, [0, 0, parts, heads, width // heads])
        turned = self.add("Transpose", split, perm=[2, 0, 3, 1, 4])
        picked = [self.add("Gather", turned, self.constant(part, np.int64), axis=0) for part in range(parts)]
        return picked

    def merge(self, heads, width):
        return self.reshape(self.add("Transpose", heads, perm=[0, 2, 1, 3]), [0, 0, width])

    def attention(self, projected, width, heads):
        queries, keys, values = self.heads(projected, 3, width, heads)
        queries = self.add("Mul", queries, self.constant(1 / math.sqrt(width // heads)))
        scores = self.add("MatMul", queries, self.add("Transpose", keys, perm=[0, 1, 3, 2]))
        return self.merge(self.add("MatMul", self.add("Softmax", scores, axis=-1), values), width)

    def linear_attention(self, projected, width, heads):
        queries, keys, values = self.heads(projected, 3, width, heads)
        queries, keys = (self.add("Add", self.add("Elu", part), self.constant(1)) for part in (queries, keys))
        axis = self.constant([2], np.int64)
        sums = self.add("ReduceSum", self.add("Mul", queries, self.add("ReduceSum", keys, axis, keepdims=1)),
                        self.constant([3], np.int64), keepdims=1)
        moments = self.add("MatMul", self.add("Transpose", keys, perm=[0, 1, 3, 2]), values)
        attended = self.add("Div", self.add("MatMul", queries, moments), self.add("Add", sums, self.constant(1e-6)))
        return self.merge(attended, width)

    def block(self, tokens, name, width, heads, epsilon, attention):
        attended = attention(self.linear(self.norm(tokens, f"{name}.norm1", epsilon), f"{name}.qkv"), width, heads)
        tokens = self.add("Add", tokens, self.linear(attended, f"{name}.projection"))
        hidden = self.linear(self.norm(tokens, f"{name}.norm2", epsilon), f"{name}.fc1")
        return self.add("Add", tokens, self.linear(self.add("Gelu", hidden), f"{name}.fc2"))

    def amplification(self, tokens, width, heads):
        name = "amplification"
        normed = self.norm(tokens, f"{name}.norm", 1e-8)
        attended = self.attention(self.linear(normed, f"{name}.qkv"), width, heads)
        (features,) = self.heads(self.linear(attended, f"{name}.mix"), 1, width, heads)
        squares = self.add("Mul", features, features)
        over = lambda axes: self.constant(axes, np.int64)
        norms = self.add("Add", self.add("ReduceSum", squares, over([2]), keepdims=1), self.constant(SQUARED_NORM_GUARD))
        prominence = self.add("ReduceSum", self.add("Div", squares, norms), over([3]), keepdims=1)
        temperature = self.constant(self.tensors[f"{name}.temperature"].astype(np.float32).reshape(1, heads, 1, 1))
        weights = self.add("Softmax", self.add("Mul", prominence, temperature), axis=1)
        sums = self.add("Add", self.add("ReduceSum", weights, over([2]), keepdims=1), self.constant(WEIGHT_GUARD))
        over_tokens = self.add("Transpose", self.add("Div", weights, sums), perm=[0, 1, 3, 2])
        moments = self.add("MatMul", over_tokens, squares)
        damping = self.add("Neg", self.add("Reciprocal", self.add("Add", moments, self.constant(1))))
        amplified = self.add("Mul", self.add("Mul", features, weights), damping)
        return self.add("Add", tokens, self.linear(self.merge(amplified, width), f"{name}.output"))

    def cosine_distance(self, one, other):
        last = self.constant([-1], np.int64)
        dot = self.add("ReduceSum", self.add("Mul", one, other), last, keepdims=0)
        norms = [self.add("ReduceL2", tokens, last, keepdims=0) for tokens in (one, other)]
        norm = self.add("Max", self.add("Mul", *norms), self.constant(1e-8))
        return self.add("Sub", self.constant(1), self.add("Div", dot, norm))


# As src/model/mvmcad/amplification.rs has them.
SQUARED_NORM_GUARD, WEIGHT_GUARD = 1e-24, 1e-8


def build(bundle, manifest):
    architecture = manifest["architecture"]
    different = {key: architecture.get(key) for key, value in EXPECTED.items() if architecture.get(key, value) != value}
    encoder = architecture["encoder"]
    width, heads, patch, side = (encoder[key] for key in ("width", "heads", "patch", "input_side"))
    grid = side // patch
    if different or encoder["registers"] or encoder["layer_scale"] or encoder["position_side"] != grid:
        sys.exit(f"export: expected the architecture of the shipped bundle, found {different or encoder}")
    graph = Graph(load_file(bundle / manifest["weights"]["file"]))

    unfolded = graph.reshape("images", [0, 3, grid, patch, grid, patch])
    patches = graph.add("Transpose", unfolded, perm=[0, 2, 4, 1, 3, 5])
    patches = graph.linear(graph.reshape(patches, [0, grid * grid, 3 * patch * patch]), "encoder.patch")
    patches = graph.add("Add", patches, graph.weight("encoder.position"))
    shape = graph.add("Concat", graph.add("Shape", "images", start=0, end=1), graph.constant([1, width], np.int64), axis=0)
    tokens = graph.add("Concat", graph.add("Expand", graph.weight("encoder.class"), shape), patches, axis=1)

    outputs = []
    for index in range(encoder["targets"][-1] + 1):
        tokens = graph.block(tokens, f"encoder.blocks.{index}", width, heads, 1e-6, graph.attention)
        outputs += [tokens] if index in encoder["targets"] else []
    half = len(outputs) // 2
    groups = [graph.mean(outputs[:half]), graph.mean(outputs[half:])]
    if architecture["whitening"]:
        groups = [graph.linear(group, f"whitening.{name}") for group, name in zip(groups, ("shallow", "deep"))]

    tokens = graph.linear(graph.mean(groups), "bottleneck.fc1")
    tokens = graph.linear(graph.add("Gelu", tokens), "bottleneck.fc2")
    tokens = graph.amplification(tokens, width, heads)
    outputs = []
    for index in range(architecture["decoder_depth"]):
        tokens = graph.block(tokens, f"decoder.{index}", width, heads, 1e-8, graph.linear_attention)
        outputs.append(tokens)
    half = len(outputs) // 2
    rebuilt = [graph.mean(outputs[half:]), graph.mean(outputs[:half])]

    bounds = [graph.constant([value], np.int64) for value in (1, 1 + grid * grid, 1)]
    only_patches = lambda group: graph.add("Slice", group, *bounds)
    groups, rebuilt = ([only_patches(group) for group in both] for both in (groups, rebuilt))
    anomalies = graph.mean([graph.cosine_distance(*pair) for pair in zip(groups, rebuilt)])
    for name, output in (("anomalies", anomalies), ("shallow", groups[0])):
        graph.nodes.append(helper.make_node("Identity", [output], [name]))
    described = lambda name, shape: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
    return helper.make_graph(
        graph.nodes,
        manifest["name"],
        [described("images", ["batch", 3, side, side])],
        [described("anomalies", ["batch", grid * grid]), described("shallow", ["batch", grid * grid, width])],
        graph.initializers,
    )


def main():
    bundle, target = Path(sys.argv[1]), sys.argv[2]
    manifest = tomllib.loads((bundle / "model.toml").read_text())
    model = helper.make_model(build(bundle, manifest), opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
    onnx.checker.check_model(model)
    onnx.save(model, target)


if __name__ == "__main__":
    main()
