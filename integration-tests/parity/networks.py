"""Bottleneck, amplification, decoder, grouping and anomaly maps: Dinomaly's network; for the
amplification (MVMCAD's code is not public) timm's attention followed by ToST's token statistics."""

from functools import partial

import torch
from timm.models.vision_transformer import Attention
from torch import nn
from torch.nn import functional as F

import encoders
import peers


class Residual(nn.Module):
    """How the amplification stands behind the bottleneck: the one thing here that no peer has."""

    def __init__(self, width, *layers):
        super().__init__()
        self.layers = nn.Sequential(nn.LayerNorm(width, eps=1e-8), *layers)

    def forward(self, tokens):
        return tokens + self.layers(tokens)


def bottleneck(width, heads, amplification):
    mlp = peers.dinomaly("models.vision_transformer").bMlp(width, 4 * width, width, drop=0.4)
    layers = [Attention(width, heads, qkv_bias=True), peers.tost_attention(width, heads)]
    return {"off": [mlp], "after": [mlp, Residual(width, *layers)], "replace": layers}[amplification]


def decoder(width, heads, depth):
    vision_transformer = peers.dinomaly("models.vision_transformer")
    return [
        vision_transformer.Block(
            dim=width,
            num_heads=heads,
            mlp_ratio=4.0,
            qkv_bias=True,
            norm_layer=partial(nn.LayerNorm, eps=1e-8),
            attn=vision_transformer.LinearAttention2,
        )
        for _ in range(depth)
    ]


OURS = {
    "attn.qkv": "qkv",
    "attn.proj": "projection",
    "mlp.fc1": "fc1",
    "mlp.fc2": "fc2",
    "norm1": "norm1",
    "norm2": "norm2",
}


def trained_names(network, amplification):
    """The peers' parameters under our names."""
    tensors = {}
    for name, value in network.decoder.state_dict().items():
        index, rest = name.split(".", 1)
        layer, kind = rest.rsplit(".", 1)
        tensors[f"decoder.{index}.{OURS[layer]}.{kind}"] = value
    first, *rest = network.bottleneck
    if amplification != "replace":
        for name, value in first.state_dict().items():
            tensors[f"bottleneck.{name}"] = value
    if amplification == "off":
        return tensors
    norm, attention, statistics = (
        rest[0].layers if amplification == "after" else [None, *network.bottleneck]
    )
    parts = {"norm": norm, "qkv": attention.qkv, "mix": attention.proj, "output": statistics.to_out[0]}
    for ours, part in parts.items():
        for kind, value in part.state_dict().items() if part else ():
            tensors[f"amplification.{ours}.{kind}"] = value
    tensors["amplification.temperature"] = statistics.temp.flatten()
    return tensors


def config(size, amplification, depth, interpolation="dinomaly"):
    """As `MvmcadConfig` in src/model/mvmcad."""
    return {
        "amplification": amplification,
        "decoder_depth": depth,
        "bottleneck_dropout": 0.4,
        "encoder": encoders.architecture(size, interpolation),
    }


def halves(count):
    return [list(range(count // 2)), list(range(count // 2, count))]


def patches_first(features):
    return {
        f"{side}.{group}": tensor.flatten(2).transpose(1, 2)
        for side, tensors in features.items()
        for group, tensor in enumerate(tensors)
    }


@torch.no_grad()
def anomaly_maps(encoder, decoder, side, map_side):
    utils = peers.dinomaly("utils")
    maps, _ = utils.cal_anomaly_maps(encoder, decoder, side)
    maps = F.interpolate(maps, size=map_side, mode="bilinear", align_corners=False)
    return utils.get_gaussian_kernel(kernel_size=5, sigma=4)(maps)[:, 0]


@torch.no_grad()
def add_network(cases, name, size, amplification, depth, map_side, count):
    uad = peers.dinomaly("models.uad")
    encoder = peers.enliven(encoders.meta_model(size), 3)
    trained = nn.ModuleList(
        [
            nn.ModuleList(bottleneck(size["width"], size["heads"], amplification)),
            nn.ModuleList(decoder(size["width"], size["heads"], depth)),
        ]
    )
    peers.enliven(trained, 6)
    network = uad.ViTill(
        encoder,
        trained[0],
        trained[1],
        target_layers=size["targets"],
        fuse_layer_encoder=halves(len(size["targets"])),
        fuse_layer_decoder=halves(depth),
    ).eval()
    images = encoders.image(size["side"], seed=7, count=count)
    encoded, decoded = network(images)
    names = {f"trained.{name}": value for name, value in trained_names(network, amplification).items()}
    # The encoder of encoders.py, so that its file serves here as well.
    weights = f"{name.split('_')[0]}_original.pth"
    torch.save(encoder.state_dict(), cases.path(weights))
    what = {
        "off": "bottleneck, decoder, groups and map",
        "after": "the same, amplification after the bottleneck",
        "replace": "the same, amplification in its place",
    }[amplification]
    cases.add(
        kind="network",
        name=name,
        what=f"{what} ({size['width']} channels)",
        peers=["dinomaly"] if amplification == "off" else ["dinomaly", "timm", "tost"],
        weights=weights,
        architecture=config(size, amplification, depth),
        map_side=map_side,
        tensors={
            "image": images,
            **names,
            **patches_first({"encoder": encoded, "decoder": decoded}),
            "map": anomaly_maps(encoded, decoded, size["side"], map_side),
        },
    )


@torch.no_grad()
def add_layer(cases, name, size, amplification):
    """The amplification by itself: it runs in place of the bottleneck, before a decoder whose blocks
    add nothing, so that what comes out is what it made."""
    width, heads = size["width"], size["heads"]
    layers = bottleneck(width, heads, amplification)
    parts = {"bottleneck": nn.ModuleList(layers), "decoder": nn.ModuleList(decoder(width, heads, 2))}
    network = peers.enliven(nn.ModuleDict(parts), 8)
    for block in network["decoder"]:
        for layer in (block.attn.proj, block.mlp.fc2):
            nn.init.zeros_(layer.weight), nn.init.zeros_(layer.bias)
    network.bottleneck, network.decoder = network["bottleneck"], network["decoder"]
    tokens = (size["side"] // size["patch"]) ** 2 + 5
    random = torch.Generator().manual_seed(9)
    groups = [torch.randn(2, tokens, width, generator=random) for _ in range(2)]
    made = (groups[0] + groups[1]) / 2
    for layer in layers:
        made = layer(made)
    names = {f"trained.{name}": value for name, value in trained_names(network, amplification).items()}
    what = {"off": "bottleneck alone", "replace": "amplification alone: attention, then token statistics"}
    cases.add(
        kind="layer",
        name=name,
        what=f"{what[amplification]} ({width} channels)",
        peers=["dinomaly"] if amplification == "off" else ["timm", "tost"],
        architecture=config({**size, "depth": 2, "targets": [0, 1]}, amplification, 2),
        tensors={"shallow": groups[0], "deep": groups[1], "made": made[:, 5:], **names},
    )


def add_small(cases):
    for amplification in ("off", "after", "replace"):
        add_network(cases, f"tiny_{amplification}", encoders.TINY, amplification, 2, 20, 2)
    for amplification in ("off", "replace"):
        add_layer(cases, f"tiny_layer_{amplification}", encoders.TINY, amplification)


def add_full(cases):
    size = {**encoders.SIZES["small"], **encoders.DINOV2}
    for amplification in ("off", "after", "replace"):
        add_network(cases, f"small_{amplification}", size, amplification, 8, 256, 2)
    for name in ("small", "base"):
        for amplification in ("off", "replace"):
            size = {**encoders.SIZES[name], **encoders.DINOV2}
            add_layer(cases, f"{name}_layer_{amplification}", size, amplification)
