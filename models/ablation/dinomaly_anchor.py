#!/usr/bin/env python3
"""Trains Dinomaly by its own PyTorch code (DINOMALY_DIR) on a DeiT-Ti/16 encoder and writes its maps.

Network, loss, optimiser, schedule and maps are Dinomaly's; data order and encoder are the ablation's: the
whole image at `--side`, ImageNet's mean and deviation, batches of a reshuffled list.
"""
import argparse
import os
import pathlib
import sys
from functools import partial

import numpy as np
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

sys.path.insert(0, os.environ["DINOMALY_DIR"])
from dinov1.utils import trunc_normal_  # noqa: E402
from models.uad import ViTill  # noqa: E402
from models.vision_transformer import Block, LinearAttention2, bMlp  # noqa: E402
from optimizers import StableAdamW  # noqa: E402
from utils import WarmCosineScheduler, cal_anomaly_maps, get_gaussian_kernel, global_cosine_hm_percent  # noqa: E402

WIDTH, HEADS, PATCH = 192, 3, 16
MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
DEVIATION = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("--train", "--test", "--encoder", "--output"):
        parser.add_argument(name, required=True)
    for name, default in (("--side", 224), ("--iterations", 200), ("--batch", 16), ("--decoder-depth", 4)):
        parser.add_argument(name, type=int, default=default)
    for name, default in (("--warm-up", 20), ("--ramp", 50), ("--seed", 1), ("--threads", 1)):
        parser.add_argument(name, type=int, default=default)
    parser.add_argument("--targets", default="2,3,4,5,6,7,8,9")
    parser.add_argument("--dropout", type=float, default=0.2)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    return parser.parse_args()


def positions(table, grid):
    """The table at another grid as Dinomaly's own encoders do it (and ours by default)."""
    own, patches = table[:, :1], table[:, 1:]
    old = int(patches.shape[1] ** 0.5)
    if old != grid:
        patches = patches.reshape(1, old, old, -1).permute(0, 3, 1, 2)
        scale = (grid + 0.1) / old
        patches = nn.functional.interpolate(patches, scale_factor=(scale, scale), mode="bicubic", antialias=False)
        assert patches.shape[-2:] == (grid, grid)
        patches = patches.permute(0, 2, 3, 1).flatten(1, 2)
    return torch.cat([own, patches], 1)


def encoder(path, side):
    model = timm.create_model("deit_tiny_patch16_224", pretrained=False, img_size=side)
    weights = {name: value.float() for name, value in load_file(path).items()}
    grid = side // PATCH
    weights["pos_embed"] = positions(weights["pos_embed"], grid)
    missing = model.load_state_dict(weights, strict=False).missing_keys
    assert all(name.startswith("head") for name in missing), missing

    def prepare_tokens(images):
        patches = model.patch_embed(images)
        return torch.cat([model.cls_token.expand(len(patches), -1, -1), patches], 1) + model.pos_embed

    model.prepare_tokens = prepare_tokens
    return model


def network(options):
    norm = partial(nn.LayerNorm, eps=1e-8)
    block = partial(Block, dim=WIDTH, num_heads=HEADS, mlp_ratio=4.0, qkv_bias=True, norm_layer=norm)
    bottleneck = nn.ModuleList([bMlp(WIDTH, 4 * WIDTH, WIDTH, drop=options.dropout)])
    decoder = nn.ModuleList([block(attn_drop=0.0, attn=LinearAttention2) for _ in range(options.decoder_depth)])
    trained = nn.ModuleList([bottleneck, decoder])
    for module in trained.modules():
        if isinstance(module, nn.Linear):
            trunc_normal_(module.weight, std=0.01, a=-0.03, b=0.03)
            nn.init.constant_(module.bias, 0)
    targets = [int(target) for target in options.targets.split(",")]

    def halves(count):
        return [list(range(count // 2)), list(range(count // 2, count))]

    model = ViTill(
        encoder=encoder(options.encoder, options.side),
        bottleneck=bottleneck,
        decoder=decoder,
        target_layers=targets,
        mask_neighbor_size=0,
        fuse_layer_encoder=halves(len(targets)),
        fuse_layer_decoder=halves(options.decoder_depth),
    )
    return model, trained


def images_of(root):
    """[(class, part, [files])] in the order of names."""
    parts = sorted(folder for folder in pathlib.Path(root).glob("*/*") if folder.is_dir())
    return [(part.parent.name, part.name, sorted(part.iterdir())) for part in parts]


def load(path, side):
    image = Image.open(path).convert("RGB").resize((side, side), Image.BILINEAR)
    return (torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255 - MEAN) / DEVIATION


def train(model, trained, options):
    images = [load(file, options.side) for _, _, files in images_of(options.train) for file in files]
    rate = options.learning_rate
    optimiser = StableAdamW(
        [{"params": trained.parameters()}], lr=rate, betas=(0.9, 0.999), weight_decay=1e-4, amsgrad=True, eps=1e-10
    )
    schedule = WarmCosineScheduler(
        optimiser, base_value=rate, final_value=rate / 10, total_iters=options.iterations, warmup_iters=options.warm_up
    )
    model.train()
    order = []
    for iteration in range(options.iterations):
        if len(order) < options.batch:
            order = order + list(np.random.permutation(len(images)))
        chosen, order = order[: options.batch], order[options.batch :]
        encoded, decoded = model(torch.stack([images[index] for index in chosen]))
        left_aside = min(0.9 * iteration / options.ramp, 0.9)
        loss = global_cosine_hm_percent(encoded, decoded, p=left_aside, factor=0.1)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(trained.parameters(), max_norm=0.1)
        optimiser.step()
        schedule.step()
        if (iteration + 1) % 25 == 0:
            print(f"iteration {iteration + 1} loss {loss.item():.5f}", flush=True)


@torch.no_grad()
def write_maps(model, options):
    model.eval()
    blur = get_gaussian_kernel(kernel_size=5, sigma=4)
    for class_name, part, files in images_of(options.test):
        encoded, decoded = model(torch.stack([load(file, options.side) for file in files]))
        maps = blur(cal_anomaly_maps(encoded, decoded, options.side)[0])
        folder = pathlib.Path(options.output) / class_name
        folder.mkdir(parents=True, exist_ok=True)
        views = {file.stem: anomaly_map[0].contiguous() for file, anomaly_map in zip(files, maps)}
        save_file(views, folder / f"{part}.safetensors")


if __name__ == "__main__":
    options = arguments()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    np.random.seed(options.seed)
    model, trained = network(options)
    train(model, trained, options)
    write_maps(model, options)
