#!/usr/bin/env python3
"""Figures of anomaly maps against masks, by scikit-learn and scipy: the same for whoever made the maps.

`figures(maps, masks, how)` takes folders: maps as `panoptes eval --maps` writes them
(`<class>/<part>.safetensors`, one f32 tensor [height, width] a view), masks as `<class>/<part>/<view>.png`
(no file: a good view). A view's score is the mean of the highest hundredth of its map, a part's the highest
of its views; AUPRO is Dinomaly's (200 thresholds, regions 8-connected, up to 30 % of the good pixels).
"""
import json
import pathlib
import sys

import numpy as np
from PIL import Image
from safetensors.numpy import load_file
from scipy.ndimage import label
from sklearn.metrics import average_precision_score, roc_auc_score

THRESHOLDS = 200
LIMIT = 0.3
# Of the set `spindle`: the encoder's patches in pixels, and the view that never had a defect.
PATCH, CONTROL = 16, "477500-315"


def view_score(anomaly_map):
    values = np.sort(anomaly_map.ravel())[::-1]
    return values[: max(1, len(values) // 100)].mean()


def aupro(maps, masks):
    """`[views, height, width]` each; nan without a region or without two false-alarm rates below the limit."""
    low, high = maps.min(), maps.max()
    if low == high:
        return float("nan")
    # How many of the thresholds each pixel lies above.
    above = np.ceil((maps.astype(np.float64) - low) / (float(high) - float(low)) * THRESHOLDS).astype(int)
    above = np.minimum(above, THRESHOLDS)
    good = np.bincount(above[masks == 0], minlength=THRESHOLDS + 1).astype(float)
    overlap = np.zeros(THRESHOLDS + 1)
    regions = 0
    for passed, mask in zip(above, masks):
        labels, count = label(mask, np.ones((3, 3)))
        for region in range(1, count + 1):
            own = passed[labels == region]
            overlap += np.bincount(own, minlength=THRESHOLDS + 1) / len(own)
        regions += count
    if regions == 0:
        return float("nan")
    alarms = np.cumsum(good[::-1])[:-1] / good.sum()
    found = np.cumsum(overlap[::-1])[:-1] / regions
    below = alarms < LIMIT
    if len(np.unique(alarms[below])) < 2:
        return float("nan")
    return float(np.trapezoid(found[below], alarms[below] / alarms[below].max()))


def read_mask(path, shape):
    """A map pixel is a defect if any mask pixel that it covers is."""
    if not path.exists():
        return np.zeros(shape, bool)
    mask = np.asarray(Image.open(path).convert("L")) > 0
    rows, columns = np.nonzero(mask)
    fitted = np.zeros(shape, bool)
    fitted[rows * shape[0] // mask.shape[0], columns * shape[1] // mask.shape[1]] = True
    return fitted


def read(maps, masks):
    """{class: {part: {view: (map, mask)}}}"""
    data = {}
    for file in sorted(pathlib.Path(maps).glob("*/*.safetensors")):
        views = {
            view: (values, read_mask(pathlib.Path(masks) / file.parent.name / file.stem / f"{view}.png", values.shape))
            for view, values in load_file(file).items()
        }
        data.setdefault(file.parent.name, {})[file.stem] = views
    return data


def mean(values):
    values = [value for value in values if value == value]
    return float(np.mean(values)) if values else float("nan")


def class_figures(parts):
    views = [view for part in parts.values() for view in part.values()]
    maps, masks = (np.stack([view[index] for view in views]) for index in (0, 1))
    bad = [any(mask.any() for _, mask in part.values()) for part in parts.values()]
    scores = [max(view_score(values) for values, _ in part.values()) for part in parts.values()]
    bad_views, view_scores = [mask.any() for mask in masks], [view_score(values) for values in maps]
    return {
        "part AUROC": roc_auc_score(bad, scores),
        "view AUROC": roc_auc_score(bad_views, view_scores),
        "pixel AUROC": roc_auc_score(masks.ravel(), maps.ravel()),
        "pixel AP": average_precision_score(masks.ravel(), maps.ravel()),
        "AUPRO": aupro(maps, masks),
    }


def in_patches(values):
    """The blocks of one patch each, of which the mean is taken or any pixel counts."""
    side = values.shape[0] // PATCH
    return values[: side * PATCH, : side * PATCH].reshape(side, PATCH, side, PATCH)


def drift(parts):
    """How well the scores of the view that never had a defect tell the last third of the parts, in the order of
    their names, from the first: 0.5 is no drift, 1 is that time alone raises scores."""
    scores = [view_score(part[CONTROL][0]) for part in parts.values() if CONTROL in part]
    third = len(scores) // 3
    if third == 0:
        return float("nan")
    return roc_auc_score([0] * third + [1] * third, scores[:third] + scores[-third:])


def figures_within(parts):
    """Views ranked within their part, pixels and patches within their view."""
    views = []
    for part in parts.values():
        bad = [mask.any() for _, mask in part.values()]
        if 0 < sum(bad) < len(bad):
            views.append(roc_auc_score(bad, [view_score(values) for values, _ in part.values()]))
    defective = [view for part in parts.values() for view in part.values() if view[1].any()]
    return {
        "view AUROC": mean(views),
        "pixel AUROC": mean(roc_auc_score(mask.ravel(), values.ravel()) for values, mask in defective),
        "pixel AP": mean(average_precision_score(mask.ravel(), values.ravel()) for values, mask in defective),
        "AUPRO": mean(aupro(values[None], mask[None]) for values, mask in defective),
        "patch AUROC": mean(
            roc_auc_score(in_patches(mask).any((1, 3)).ravel(), in_patches(values).mean((1, 3)).ravel())
            for values, mask in defective
        ),
        "control drift": drift(parts),
    }


def figures(maps, masks, how):
    """The mean over classes; `how` is `classes` or `within`."""
    rows = [{"classes": class_figures, "within": figures_within}[how](parts) for parts in read(maps, masks).values()]
    return {name: mean(row[name] for row in rows) for name in rows[0]}


if __name__ == "__main__":
    print(json.dumps(figures(*sys.argv[1:4])))
