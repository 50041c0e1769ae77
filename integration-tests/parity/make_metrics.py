"""Writes metrics.json, or the file that is named: what others' code makes of small random and degenerate scores and maps.

AUROC, AP and F1 are scikit-learn's, with F1 guarded by 1e-7 as Dinomaly does. AUPRO is computed twice,
and both must agree: by a plain reading of Dinomaly's protocol, and from adeval's port of MVTec's
evaluation. That one takes its thresholds from the good pixels and integrates to exactly 0.3, with an
interpolated point. So only its parts are used: its regions and their overlap above a threshold, its good
pixels, and its trapezoids, at Dinomaly's 200 thresholds, without the points at 0.3 or above, and with the
false-alarm rates divided by the largest.

Needs what requirements.txt pins. Numbers are rounded so that f32 holds them and the file stays small,
figures to 12 digits so that it is the same file on any processor; a figure that is not defined is null.
"""

import json
import math
import pathlib
import sys
import warnings

import numpy
from adeval.au_pro import collect_anomaly_scores, trapezoid
from scipy.ndimage import label
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

random = numpy.random.default_rng(7)


def rounded(values, digits=4):
    """Decimals that name the same f32 when read as f64 first."""
    return numpy.float32(numpy.round(values, digits))


def short(values):
    return [float(str(value)) for value in numpy.float32(values).ravel()]


def figure(value):
    return None if value is None else round(float(value), 12)


def ranking_figures(labels, scores):
    if labels.min() == labels.max():
        return {"auroc": None, "average_precision": None, "best_f1": None}
    precision, recall, _ = precision_recall_curve(labels, scores)
    f1 = 2 * precision * recall / (precision + recall + 1e-7)
    return {
        "auroc": figure(roc_auc_score(labels, scores)),
        "average_precision": figure(average_precision_score(labels, scores)),
        "best_f1": figure(f1[:-1].max()),
    }


def ranking(name, labels, scores):
    labels, scores = numpy.array(labels), rounded(scores)
    case = {"name": name, "scores": short(scores), "labels": labels.tolist()}
    return case | ranking_figures(labels, scores)


def random_ranking(count, levels):
    labels = random.integers(0, 2, count)
    labels[:2] = [0, 1]
    scores = (random.integers(0, levels, count) + labels * levels // 4) / levels
    return ranking(f"{count} scores on {levels} levels", labels, scores)


def area(points):
    """Points (false-alarm rate, overlap) from the highest threshold to the lowest."""
    points = numpy.array([point for point in points if point[0] < 0.3])
    # One false-alarm rate alone spans no area.
    if len(points) == 0 or not numpy.isfinite(points).all() or points[0, 0] == points[-1, 0]:
        return None
    return float(trapezoid(points[:, 0] / points[-1, 0], points[:, 1]))


def thresholds(maps):
    low, high = float(maps.min()), float(maps.max())
    return [low + k * (high - low) / 200 for k in range(200)] if low < high else []


def plain_aupro(maps, masks):
    points = []
    for threshold in reversed(thresholds(maps)):
        above = maps.astype(float) > threshold
        overlaps = []
        for image, mask in enumerate(masks):
            regions, number = label(mask, structure=numpy.ones((3, 3)))
            overlaps += [above[image][regions == i + 1].mean() for i in range(number)]
        points.append((above[masks == 0].mean(), numpy.mean(overlaps)))
    return area(points)


def adeval_aupro(maps, masks):
    components, good = collect_anomaly_scores(maps.astype(float), masks)
    if not components:
        return None
    points = []
    # Its regions want increasing thresholds.
    for threshold in thresholds(maps):
        overlap = sum(component.compute_overlap(threshold) for component in components) / len(components)
        alarms = len(good) - numpy.searchsorted(good, threshold, side="right")
        points.append((alarms / len(good) if len(good) else math.nan, overlap))
    return area(points[::-1])


def overlap(name, maps, masks, digits=4):
    maps, masks = rounded(maps, digits), numpy.array(masks)
    plain, theirs = plain_aupro(maps, masks), adeval_aupro(maps, masks)
    assert plain == theirs or abs(plain - theirs) < 1e-12, (name, plain, theirs)
    images = [{"map": short(m), "mask": mask.ravel().tolist()} for m, mask in zip(maps, masks)]
    case = {"name": name, "width": maps.shape[2], "images": images, "aupro": figure(theirs)}
    return case | ranking_figures(masks.ravel(), maps.ravel())


def random_overlap(count, height, width, digits):
    masks = numpy.zeros((count, height, width), int)
    for image in range(count - 1):
        for _ in range(2):
            y, x = random.integers(0, height - 3), random.integers(0, width - 4)
            masks[image, y : y + 3, x : x + random.integers(1, 5)] = 1
    maps = random.random((count, height, width)) + 0.8 * masks * random.random((count, 1, 1))
    return overlap(f"{count} maps of {width}x{height}, {digits} digits", maps, masks, digits)


def degenerate():
    noise = random.random((2, 4, 5))
    none = numpy.zeros((2, 4, 5), int)
    corner, diagonal, touching = none.copy(), none.copy(), none.copy()
    corner[0, 0, 0] = 1
    diagonal[0] = numpy.eye(4, 5, dtype=int)
    touching[1, :, 2:] = 1
    steps = numpy.arange(40).reshape(2, 4, 5) / 40
    return [
        overlap("empty masks", noise, none),
        overlap("defects alone", noise, none + 1),
        overlap("all values equal", none + 0.25, corner),
        overlap("a single pixel", [[[0.5]]], [[[1]]]),
        overlap("two pixels", [[[0.25, 0.75]]], [[[0, 1]]]),
        overlap("a region of one pixel", noise, corner),
        overlap("a diagonal is one region", noise, diagonal),
        overlap("a region at the edge", noise, touching),
        overlap("perfect, good pixels equal", corner * 0.5, corner),
        overlap("perfect, good pixels differ", noise + corner, corner),
        overlap("upside down", noise - corner, corner),
        overlap("negative values", noise - 2, diagonal),
        overlap("two values", noise > 0.8, touching, 0),
        overlap("values on the thresholds", steps, corner),
        overlap("one far outlier", noise + 1000 * corner, diagonal),
    ]


warnings.simplefilter("ignore")
golden = {
    "ranking": [
        random_ranking(12, 5),
        random_ranking(40, 1000),
        random_ranking(60, 8),
        ranking("all equal", [0, 1, 0, 1], [0.5] * 4),
        ranking("perfect", [0, 0, 1], [0.1, 0.2, 0.3]),
        ranking("upside down", [1, 1, 0], [0.1, 0.2, 0.3]),
        ranking("both zeros", [1, 0, 1, 0], [0.0, -0.0, 0.5, -0.5]),
        ranking("good ones alone", [0, 0], [0.1, 0.2]),
        ranking("bad ones alone", [1], [0.1]),
    ],
    "overlap": [random_overlap(3, 9, 11, 4), random_overlap(2, 12, 8, 4), random_overlap(3, 8, 8, 1)]
    + degenerate(),
}
path = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).with_name("metrics.json"))
path.write_text(json.dumps(golden, separators=(",", ":")) + "\n")
