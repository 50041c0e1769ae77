#!/usr/bin/env python3
"""Writes reference values for what no public code has: MVMCAD's prior in both forms, and the forms of
its amplification that go beyond ToST's (over tokens, across views, adaptive), and recentred targets.
What others' code has is held against that code; see generate.py.

Independent of the Rust code: numpy and naive loops in float64 for the network, Pillow for the
resize. Needs numpy, pillow and safetensors; run it in this folder to make the files anew.
"""
import math

import numpy as np
from PIL import Image
from safetensors.numpy import save_file

erf = np.vectorize(math.erf)
rng = np.random.default_rng(20261124)


def normal(*shape, scale=0.3):
    return rng.normal(0, scale, shape).astype(np.float32)


def norm(x, w, b, eps):
    mean = x.mean(-1, keepdims=True)
    var = ((x - mean) ** 2).mean(-1, keepdims=True)
    return (x - mean) / np.sqrt(var + eps) * w + b


def linear(x, t, name):
    return x @ t[name + ".weight"].astype(np.float64).T + t[name + ".bias"]


def gelu(x):
    return 0.5 * x * (1 + erf(x / math.sqrt(2)))


def softmax(x, axis):
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def attention(x, qkv, heads):
    """Softmax attention of one image, a head at a time."""
    n, d = x.shape
    h = d // heads
    out = np.zeros((n, d))
    for i in range(heads):
        q = qkv[:, i * h : (i + 1) * h]
        k = qkv[:, d + i * h : d + (i + 1) * h]
        v = qkv[:, 2 * d + i * h : 2 * d + (i + 1) * h]
        out[:, i * h : (i + 1) * h] = softmax(q @ k.T / math.sqrt(h), 1) @ v
    return out


def linear_attention(x, qkv, heads):
    """The same with kernel elu + 1, token by token as the formula is written."""
    n, d = x.shape
    h = d // heads
    phi = lambda u: np.where(u > 0, u + 1, np.exp(np.minimum(u, 0)))
    out = np.zeros((n, d))
    for i in range(heads):
        q = phi(qkv[:, i * h : (i + 1) * h])
        k = phi(qkv[:, d + i * h : d + (i + 1) * h])
        v = qkv[:, 2 * d + i * h : 2 * d + (i + 1) * h]
        for t in range(n):
            weights = np.array([q[t] @ k[s] for s in range(n)])
            out[t, i * h : (i + 1) * h] = weights @ v / (weights.sum() + 1e-6)
    return out


# The encoder -------------------------------------------------------------------------------


def encoder_weights(width, depth, patch, positions):
    """In timm's names."""
    t = {
        "cls_token": normal(1, 1, width),
        "pos_embed": normal(1, positions**2 + 1, width),
        "patch_embed.proj.weight": normal(width, 3, patch, patch, scale=0.1),
        "patch_embed.proj.bias": normal(width),
        "norm.weight": normal(width),
        "norm.bias": normal(width),
    }
    for i in range(depth):
        b = f"blocks.{i}."
        for n in ("norm1", "norm2"):
            t[b + n + ".weight"] = 1 + normal(width)
            t[b + n + ".bias"] = normal(width)
        for n, rows, columns in (
            ("attn.qkv", 3 * width, width),
            ("attn.proj", width, width),
            ("mlp.fc1", 4 * width, width),
            ("mlp.fc2", width, 4 * width),
        ):
            t[b + n + ".weight"] = normal(rows, columns)
            t[b + n + ".bias"] = normal(rows)
    return t


def encode(t, image, width, heads, depth, patch, eps=1e-6):
    """All tokens after every block, for one image [3, S, S]."""
    grid = image.shape[1] // patch
    kernel = t["patch_embed.proj.weight"].astype(np.float64)
    patches = np.zeros((grid * grid, width))
    for y in range(grid):
        for x in range(grid):
            window = image[:, y * patch : (y + 1) * patch, x * patch : (x + 1) * patch]
            for o in range(width):
                patches[y * grid + x, o] = (window * kernel[o]).sum() + t["patch_embed.proj.bias"][o]
    pos = t["pos_embed"][0].astype(np.float64)
    cls = t["cls_token"][0].astype(np.float64)
    x = np.concatenate([cls, patches]) + pos
    outputs = []
    for i in range(depth):
        b = f"blocks.{i}."
        y = norm(x, t[b + "norm1.weight"], t[b + "norm1.bias"], eps)
        y = linear(attention(y, linear(y, t, b + "attn.qkv"), heads), t, b + "attn.proj")
        x = x + y
        y = norm(x, t[b + "norm2.weight"], t[b + "norm2.bias"], eps)
        y = linear(gelu(linear(y, t, b + "mlp.fc1")), t, b + "mlp.fc2")
        x = x + y
        outputs.append(x)
    return outputs


# The rest of the network ---------------------------------------------------------------------


def trained_weights(width, heads, depth):
    t = {
        "prior.gamma": np.array([1.2, -0.7, 0.4], np.float32),
        "prior.shift": normal(3),
        "prior.running_mean": normal(3),
        "prior.running_variance": 1 + np.abs(normal(3)),
        "prior.channel_strength": np.array([0.6], np.float32),
        "prior.spatial_strength": np.array([-0.4], np.float32),
        "amplification.temperature": 1 + normal(heads, scale=2.0),
    }
    norms = ["amplification.norm"]
    layers = [
        ("bottleneck.fc1", 4 * width, width),
        ("bottleneck.fc2", width, 4 * width),
        ("amplification.qkv", 3 * width, width),
        ("amplification.mix", width, width),
        ("amplification.output", width, width),
        ("amplification.strength", heads, width),
    ]
    for i in range(depth):
        norms += [f"decoder.{i}.norm1", f"decoder.{i}.norm2"]
        layers += [
            (f"decoder.{i}.qkv", 3 * width, width),
            (f"decoder.{i}.projection", width, width),
            (f"decoder.{i}.fc1", 4 * width, width),
            (f"decoder.{i}.fc2", width, 4 * width),
        ]
    for name in norms:
        t[name + ".weight"] = 1 + normal(width)
        t[name + ".bias"] = normal(width)
    for name, rows, columns in layers:
        t[name + ".weight"] = normal(rows, columns)
        t[name + ".bias"] = normal(rows)
    return t


def prior(t, x, mode):
    if mode == "off":
        return x
    gamma = t["prior.gamma"].astype(np.float64)
    alpha = np.abs(gamma) / np.abs(gamma).sum()
    c = lambda v: np.asarray(v, np.float64).reshape(3, 1, 1)
    normed = c(gamma) * (x - c(t["prior.running_mean"])) / np.sqrt(c(t["prior.running_variance"]) + 1e-5)
    if mode == "literal":
        xch = sigmoid(c(alpha) * normed) * x
        m = xch.mean(0)
        s = m.sum()
        beta = m / (math.copysign(1, s) * max(abs(s), 1e-6))
        return sigmoid(beta * xch) * xch
    channel, spatial = (math.tanh(float(t[f"prior.{k}_strength"][0])) for k in ("channel", "spatial"))
    xch = x * (1 + channel * (2 * sigmoid(c(alpha) * (normed + c(t["prior.shift"]))) - 1))
    m = xch.mean(0)
    s = m.mean()
    place = m / (math.copysign(1, s) * max(abs(s), 0.1))
    return xch * (1 + spatial * (2 * sigmoid(place * xch) - 1))


def amplify(t, x, heads, residual, softmax_over="heads", scope="view", strength="fixed"):
    """The tokens of one view, or of all views of a part one after the other."""
    n, d = x.shape
    h = d // heads
    y = norm(x, t["amplification.norm.weight"], t["amplification.norm.bias"], 1e-8) if residual else x
    mixer = attention if scope == "view" else linear_attention
    f = linear(mixer(y, linear(y, t, "amplification.qkv"), heads), t, "amplification.mix")
    prominence = np.zeros((heads, n))
    for i in range(heads):
        w = f[:, i * h : (i + 1) * h]
        unit = w / np.maximum(np.sqrt((w**2).sum(0, keepdims=True)), 1e-12)
        prominence[i] = t["amplification.temperature"][i] * (unit**2).sum(1)
    pi = softmax(prominence, 0 if softmax_over == "heads" else 1)
    share_of_head = sigmoid(linear(y, t, "amplification.strength")) if strength == "adaptive" else np.ones((n, heads))
    out = np.zeros((n, d))
    for i in range(heads):
        w = f[:, i * h : (i + 1) * h]
        share = pi[i] / (pi[i].sum() + 1e-8)
        damping = 1 / (1 + share @ w**2)
        out[:, i * h : (i + 1) * h] = -(w * pi[i][:, None]) * damping * share_of_head[:, i : i + 1]
    out = linear(out, t, "amplification.output")
    return x + out if residual else out


def decode(t, x, heads, depth):
    outputs = []
    for i in range(depth):
        b = f"decoder.{i}."
        y = norm(x, t[b + "norm1.weight"], t[b + "norm1.bias"], 1e-8)
        x = x + linear(linear_attention(y, linear(y, t, b + "qkv"), heads), t, b + "projection")
        y = norm(x, t[b + "norm2.weight"], t[b + "norm2.bias"], 1e-8)
        x = x + linear(gelu(linear(y, t, b + "fc1")), t, b + "fc2")
        outputs.append(x)
    return outputs


def bilinear(image, new, aligned):
    old = len(image)
    out = np.zeros((new, new))

    def at(i):
        p = i * (old - 1) / (new - 1) if aligned else max((i + 0.5) * old / new - 0.5, 0)
        low = min(int(p), old - 1)
        return low, min(low + 1, old - 1), p - low

    for y in range(new):
        a, b, v = at(y)
        for x in range(new):
            c, d, w = at(x)
            top = image[a, c] * (1 - w) + image[a, d] * w
            bottom = image[b, c] * (1 - w) + image[b, d] * w
            out[y, x] = top * (1 - v) + bottom * v
    return out


def blur(image):
    side = len(image)
    kernel = np.array([[math.exp(-(y * y + x * x) / 32) for x in range(-2, 3)] for y in range(-2, 3)])
    kernel /= kernel.sum()
    out = np.zeros((side, side))
    for y in range(side):
        for x in range(side):
            for j in range(-2, 3):
                for i in range(-2, 3):
                    if 0 <= y + j < side and 0 <= x + i < side:
                        out[y, x] += kernel[j + 2, i + 2] * image[y + j, x + i]
    return out


def recentred(e, leading):
    """The patches less the class token, mean 0 and variance 1 over the channels."""
    centred = e[leading:] - e[0]
    centred = centred - centred.mean(1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(1, keepdims=True) + 1e-5)


def anomaly_maps(views, t, heads, depth, side, map_side, target="plain", **form):
    """The maps of all views of one part; each view comes as the tokens of its target blocks."""
    leading, half = 1, len(views[0]) // 2
    groups = [[sum(v[:half]) / half, sum(v[half:]) / half] for v in views]
    bottlenecked = []
    for shallow, deep in groups:
        x = (shallow + deep) / 2
        bottlenecked.append(linear(gelu(linear(x, t, "bottleneck.fc1")), t, "bottleneck.fc2"))
    if form.get("scope") == "part":
        together = amplify(t, np.concatenate(bottlenecked), heads, True, **form)
        bottlenecked = np.split(together, len(views))
    elif form.pop("amplification", "after") == "after":
        bottlenecked = [amplify(t, x, heads, True, **form) for x in bottlenecked]
    maps = []
    for (shallow, deep), x in zip(groups, bottlenecked):
        decoded = decode(t, x, heads, depth)
        total = np.zeros((side, side))
        for e, d in ((shallow, sum(decoded[depth // 2 :])), (deep, sum(decoded[: depth // 2]))):
            e = recentred(e, leading) if target == "recentred" else e[leading:]
            d = d[leading:]
            cos = (e * d).sum(1) / (np.sqrt((e**2).sum(1)) * np.sqrt((d**2).sum(1)))
            grid = int(math.sqrt(len(cos)))
            total += bilinear((1 - cos).reshape(grid, grid), side, True) / 2
        maps.append(blur(bilinear(total, map_side, False)))
    return np.stack(maps).astype(np.float32)


# The files -----------------------------------------------------------------------------------


def network_files():
    width, heads, depth, patch, side = 16, 2, 4, 7, 28
    images = normal(2, 3, side, side, scale=1.0) + 0.4
    plain = encoder_weights(width, depth, patch, 4)
    save_file(plain, "independent/encoder.safetensors")
    trained = trained_weights(width, heads, 2)
    golden = {"images": images}
    encoded = lambda mode: [
        encode(plain, prior(trained, image.astype(np.float64), mode), width, heads, depth, patch) for image in images
    ]
    cases = {
        "literal": ("literal", {"amplification": "off"}),
        "calibrated": ("calibrated", {}),
        "tokens": ("off", {"softmax_over": "tokens"}),
        "part": ("off", {"scope": "part"}),
        "adaptive": ("off", {"strength": "adaptive"}),
        "recentred": ("off", {"target": "recentred"}),
    }
    for name, (mode, form) in cases.items():
        golden[f"maps.{name}"] = anomaly_maps(encoded(mode), trained, heads, 2, side, 20, **form)
    save_file(trained, "independent/trained.safetensors")
    save_file(golden, "independent/network.safetensors")


def resize_file():
    """Sizes down, up, unchanged and lopsided; the pixels are the formula in the test."""
    golden = {}
    for width, height, resize, crop in [(61, 47, 32, 28), (20, 31, 48, 40), (32, 50, 32, 28), (200, 3, 16, 16), (97, 130, 30, 23)]:
        y, x, c = np.mgrid[0:height, 0:width, 0:3]
        pixels = ((x * 7 + y * 13 + c * 50 + x * y) % 256).astype(np.uint8)
        image = Image.fromarray(pixels).resize((resize, resize), Image.BILINEAR)
        margin = (resize - crop) // 2
        image = image.crop((margin, margin, margin + crop, margin + crop))
        golden[f"{width}.{height}.{resize}.{crop}"] = np.asarray(image).copy()
    save_file(golden, "independent/resize.safetensors")


network_files()
resize_file()
