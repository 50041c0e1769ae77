"""The preparation of images: Dinomaly's transforms, whose resize is Pillow's."""

import numpy as np
import PIL
import torch
from PIL import Image

import peers

peers.VERSIONS["pillow"] = f"Pillow {PIL.__version__}"


def pictures(sizes):
    """Noise, edges, thin lines, gradients and checks: what a resize may get wrong."""
    random = np.random.default_rng(12)
    for index, (width, height) in enumerate(sizes):
        y, x = np.mgrid[0:height, 0:width]
        grey = [
            random.integers(0, 256, (height, width, 3)),
            255 * ((x + y) % 2),
            255 * (x % 7 == 0) + 0 * y,
            x * 255 / max(width - 1, 1) + 0 * y,
            255 * ((x > width / 3) & (y > height / 2)),
            random.integers(0, 2, (height, width, 3)) * 255,
        ][index % 6]
        grey = np.broadcast_to(grey[..., None], (height, width, 3)) if grey.ndim == 2 else grey
        yield Image.fromarray(np.ascontiguousarray(grey).astype(np.uint8))


def add(cases, name, sizes, goals):
    transforms = peers.dinomaly("dataset").get_data_transforms
    tensors, images = {}, []
    for index, picture in enumerate(pictures(sizes)):
        resize, crop = goals[index % len(goals)]
        transform, mask_transform = transforms(resize, crop)
        tensors[f"image.{index}"] = torch.from_numpy(np.array(picture))
        cropped = (mask_transform(picture) * 255).round().to(torch.uint8)
        tensors[f"resized.{index}"] = cropped.permute(1, 2, 0)
        tensors[f"prepared.{index}"] = transform(picture)
        images.append({"resize": resize, "crop": crop})
    cases.add(
        "resize",
        f"{name}_resize",
        f"resize and crop of {len(sizes)} images, in 1/255 ({name})",
        ["pillow"],
        tensors,
        bound=0.0,
        images=images,
    )


def add_small(cases):
    add(cases, "tiny", [(37, 29), (20, 31), (32, 32), (61, 3), (9, 40), (50, 47)], [(32, 28), (24, 16), (24, 24)])


def add_full(cases):
    random = np.random.default_rng(13)
    sizes = [tuple(int(side) for side in random.integers(1, 1200, 2)) for _ in range(58)]
    sizes += [(448, 448), (1024, 1024), (2048, 1536), (1, 1)]
    add(cases, "full", sizes, [(448, 392), (256, 224), (64, 64)])
