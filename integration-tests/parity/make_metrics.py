"""Writes metrics.json: what scikit-learn, and a plain reading of the protocol, make of small random
scores and maps. Needs numpy, scikit-learn and scipy; the numbers are rounded so that f32 holds them.
"""

import json
import pathlib

import numpy
from scipy.ndimage import label
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

random = numpy.random.default_rng(7)


def ranking(count, levels):
    labels = random.integers(0, 2, count)
    labels[:2] = [0, 1]
    scores = (random.integers(0, levels, count) + labels * levels // 4) / levels
    scores = numpy.float32(scores).astype(float)
    precision, recall, _ = precision_recall_curve(labels, scores)
    f1 = 2 * precision * recall / (precision + recall + 1e-7)
    return {
        "scores": scores.tolist(),
        "labels": labels.tolist(),
        "auroc": roc_auc_score(labels, scores),
        "average_precision": average_precision_score(labels, scores),
        "best_f1": float(f1[:-1].max()),
    }


def overlap(count, height, width):
    masks = numpy.zeros((count, height, width), int)
    for image in range(count - 1):
        for _ in range(2):
            y, x = random.integers(0, height - 3), random.integers(0, width - 4)
            masks[image, y : y + 3, x : x + random.integers(1, 5)] = 1
    maps = random.random((count, height, width)) + 0.8 * masks * random.random((count, 1, 1))
    maps = numpy.float32(numpy.round(maps, 4)).astype(float)
    low, high = maps.min(), maps.max()
    points = []
    for k in range(200):
        above = maps > low + k * (high - low) / 200
        overlaps = []
        for image in range(count):
            regions, number = label(masks[image], structure=numpy.ones((3, 3)))
            overlaps += [above[image][regions == i + 1].mean() for i in range(number)]
        points.append((above[masks == 0].mean(), numpy.mean(overlaps)))
    points = numpy.array([point for point in points if point[0] < 0.3])
    rates = points[:, 0] / points[:, 0].max()
    area = -numpy.trapezoid(points[:, 1], rates)
    images = [{"map": maps[i].ravel().tolist(), "mask": masks[i].ravel().tolist()} for i in range(count)]
    return {"width": width, "images": images, "aupro": area}


golden = {
    "ranking": [ranking(12, 5), ranking(40, 1000), ranking(60, 8)],
    "overlap": [overlap(3, 9, 11), overlap(2, 12, 8)],
}
path = pathlib.Path(__file__).with_name("metrics.json")
path.write_text(json.dumps(golden) + "\n")
