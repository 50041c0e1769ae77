"""The shipped model in ONNX Runtime, OpenCV and NumPy: a part's images to scores, regions and maps."""

import tomllib
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
from safetensors.numpy import load_file

TOP_SHARE = 0.01
SENT_SIDE = 128
MOST_REGIONS = 16


class Scorer:
    def __init__(self, bundle, network, threads):
        bundle = Path(bundle)
        self.manifest = tomllib.loads((bundle / "model.toml").read_text())
        encoder = self.manifest["architecture"]["encoder"]
        self.side, self.grid = encoder["input_side"], encoder["input_side"] // encoder["patch"]
        normalisation = self.manifest["normalisation"]
        mean, deviation = (np.array(normalisation[key], np.float32) for key in ("mean", "deviation"))
        # One table of 256 levels a channel: cheaper than arithmetic on every pixel.
        self.levels = ((np.arange(256, dtype=np.float32)[:, None] / 255 - mean) / deviation).T.copy()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        self.session = onnxruntime.InferenceSession(network, options, providers=["CPUExecutionProvider"])
        self.projection = projection(self.grid, self.side, self.manifest["map_side"])
        tensors = load_file(bundle / self.manifest["weights"]["file"])
        self.memory = {
            name.removeprefix("memory."): prototypes(tensor) for name, tensor in tensors.items() if name.startswith("memory.")
        }
        self.mixes = {
            name.removeprefix("memory_mix."): tensor.astype(np.float32)
            for name, tensor in tensors.items()
            if name.startswith("memory_mix.")
        }

    def prepare(self, encoded):
        """Image bytes to the network's input, and the image's size; `None` if they are no image."""
        image = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR_RGB)
        if image is None:
            return None
        height, width = image.shape[:2]
        if (height, width) != (self.side, self.side):
            image = cv2.resize(image, (self.side, self.side), interpolation=cv2.INTER_AREA)
        planes = np.empty((3, self.side, self.side), np.float32)
        for channel, levels in enumerate(self.levels):
            np.take(levels, image[:, :, channel], out=planes[channel])
        return planes, (width, height)

    def maps(self, images, subjects):
        """Anomaly maps of images; a subject is `class/view`."""
        anomalies, shallow = self.session.run(["anomalies", "shallow"], {"images": np.stack(images)})
        for patches, features, subject in zip(anomalies, shallow, subjects):
            if subject in self.memory:
                own, other = self.mixes[subject]
                features /= np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
                nearest = np.matmul(self.memory[subject], features[:, :, None])[:, :, 0].max(1)
                patches[:] = own * patches + other * (1 - nearest)
        grids = anomalies.reshape(-1, self.grid, self.grid)
        return np.matmul(np.matmul(self.projection, grids), self.projection.T)

    def view(self, view_map, class_name, size):
        """What a result says of one view."""
        count = max(int(view_map.size * TOP_SHARE), 1)
        score = float(np.partition(view_map, -count, axis=None)[-count:].mean())
        threshold = self.manifest["classes"].get(class_name, {}).get("pixel_threshold")
        return {
            "status": "scored",
            "score": score,
            "map": encode(view_map),
            "regions": [] if threshold is None else regions(view_map, threshold, size),
        }

    def threshold(self, class_name):
        return self.manifest["classes"].get(class_name, {}).get("threshold")


def prototypes(levels):
    values = (levels.astype(np.float32) - 128) / 127
    return values / np.maximum(np.linalg.norm(values, axis=2, keepdims=True), 1e-12)


def encode(view_map):
    height, width = view_map.shape
    if max(height, width) > SENT_SIDE:
        view_map = cv2.resize(view_map, (SENT_SIDE, SENT_SIDE), interpolation=cv2.INTER_AREA)
    lowest, highest = float(view_map.min()), float(view_map.max())
    scale = (highest - lowest) / 255
    levels = np.zeros(view_map.shape, np.uint8)
    if scale > 0:
        levels = np.rint((view_map - lowest) / scale).astype(np.uint8)
    data = cv2.imencode(".png", levels)[1].tobytes()
    height, width = levels.shape
    return {"codec": "png", "width": width, "height": height, "scale": scale, "offset": lowest, "data": data}


def regions(view_map, threshold, size):
    above = (view_map >= threshold).astype(np.uint8)
    if not above.any():
        return []
    count, labels, stats, _ = cv2.connectedComponentsWithStats(above, connectivity=8)
    wide, high = size[0] / view_map.shape[1], size[1] / view_map.shape[0]
    found = []
    for label in range(1, count):
        x, y, width, height, area = (int(value) for value in stats[label])
        inside = view_map[y : y + height, x : x + width][labels[y : y + height, x : x + width] == label]
        found.append({
            "x": int(x * wide), "y": int(y * high), "width": int(width * wide), "height": int(height * high),
            "area": int(area * wide * high), "peak": float(inside.max()),
        })
    return sorted(found, key=lambda region: -region["peak"])[:MOST_REGIONS]


def projection(grid, side, map_side):
    """Patches to map pixels along one axis: bilinear twice, then a Gaussian of 5 taps."""
    up = interpolation(grid, side, np.arange(side) * ((grid - 1) / (side - 1)))
    down = interpolation(side, map_side, np.maximum((np.arange(map_side) + 0.5) * side / map_side - 0.5, 0))
    taps = np.exp(-(np.arange(-2, 3) ** 2) / 32.0)
    smooth = sum(np.eye(map_side, k=offset) * tap for offset, tap in zip(range(-2, 3), taps / taps.sum()))
    return (smooth @ down @ up).astype(np.float32)


def interpolation(before, after, positions):
    weights = np.zeros((after, before))
    lower = np.minimum(positions.astype(int), before - 1)
    upper = np.minimum(lower + 1, before - 1)
    share = positions - lower
    rows = np.arange(after)
    np.add.at(weights, (rows, lower), 1 - share)
    np.add.at(weights, (rows, upper), share)
    return weights
