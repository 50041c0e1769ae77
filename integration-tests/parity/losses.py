"""The losses of Dinomaly and INP-Former: values, and the gradients that their hooks leave.

Computed in f64: in f32 the peers' own gradients are off by up to 2e-4 at full size, since the length of a
whole feature map is one sum over 300,000 values, and soft mining takes the third power.
"""

import torch

import peers


def features(count, width, grid, seed):
    """Encoder features, and decoder features that are near them at some places and far at others."""
    random = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=random)
    encoder = [draw(count, width, grid, grid) + 0.5 for _ in range(2)]
    decoder = [tensor + 2 * draw(count, 1, grid, grid).abs() * draw(*tensor.shape) for tensor in encoder]
    return encoder, decoder


def add_loss(cases, name, what, peer, loss, objective, left_aside, shape, value=lambda value: value, scale=lambda n, k: 1.0):
    given = features(*shape)
    encoder = [tensor.double() for tensor in given[0]]
    leaves = [tensor.detach().double().requires_grad_() for tensor in given[1]]
    # The losses hang hooks on what they are given; what hangs below it sees their work.
    found = loss(encoder, [leaf * 1 for leaf in leaves])
    found.backward()
    points = shape[0] * shape[2] ** 2
    factor = scale(points, int(points * (1 - left_aside)))
    tensors = {}
    for group in range(2):
        for side, tensor in (("encoder", encoder[group]), ("decoder", leaves[group]), ("gradient", factor * leaves[group].grad)):
            tensors[f"{side}.{group}"] = tensor.float().flatten(2).transpose(1, 2)
    if value:
        tensors["value"] = value(found).float().reshape(1)
    cases.add("loss", name, what, [peer], tensors, objective=objective, left_aside=left_aside)


def add(cases, name, shape):
    utils = peers.dinomaly("utils")
    for left_aside in (0.0, 0.45, 0.9):
        add_loss(
            cases,
            f"{name}_loss_dinomaly_{int(100 * left_aside)}",
            f"Dinomaly's loss, {left_aside:.0%} left aside, value and gradient ({name})",
            "dinomaly",
            lambda a, b: utils.global_cosine_hm_percent(a, b, p=left_aside, factor=0.1),
            {"kind": "dinomaly"},
            left_aside,
            shape,
        )
    add_loss(
        cases,
        f"{name}_loss_focal",
        f"focal loss without leak, value and gradient ({name})",
        "dinomaly",
        lambda a, b: utils.regional_cosine_hm(a, b, p=0.9) / 2,
        {"kind": "focal", "easy_share": 0.0},
        0.9,
        shape,
    )
    # The peer's value is the mean over all points, ours that over the hard ones.
    add_loss(
        cases,
        f"{name}_loss_focal_leak",
        f"focal loss with a leak of 0.1, gradient ({name})",
        "dinomaly",
        lambda a, b: utils.regional_cosine_hm_percent(a, b, p=0.9, factor=0.1),
        {"kind": "focal", "easy_share": 0.1},
        0.9,
        shape,
        value=None,
        scale=lambda points, hard: points / hard,
    )
    add_loss(
        cases,
        f"{name}_loss_soft_mining",
        f"soft mining, value and gradient ({name})",
        "inp_former",
        peers.inp_former_loss(),
        {"kind": "soft_mining"},
        0.0,
        shape,
    )


def add_small(cases):
    add(cases, "tiny", (2, 12, 6, 10))


def add_full(cases):
    add(cases, "small", (4, 384, 28, 10))
