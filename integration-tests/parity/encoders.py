"""Encoders of timm, Hugging Face and Meta (in Dinomaly's copy) with random weights: files as those
libraries write them, and what their own forward passes make of an image."""

import shutil

import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from transformers import Dinov2WithRegistersConfig, Dinov2WithRegistersModel

import peers

MIDDLE = [2, 3, 4, 5, 6, 7, 8, 9]
SIZES = {
    "small": dict(width=384, depth=12, heads=6, targets=MIDDLE),
    "base": dict(width=768, depth=12, heads=12, targets=MIDDLE),
    "large": dict(width=1024, depth=24, heads=16, targets=[4, 6, 8, 10, 12, 14, 16, 18]),
}
DINOV2 = dict(patch=14, table=37, side=392)
TINY = dict(width=16, depth=2, heads=2, targets=[0, 1], patch=7, table=5, side=28)


def architecture(size, interpolation="antialiased", registers=4, layer_scale=True):
    """As `VitConfig` in src/model/vit.rs."""
    return {
        "input_side": size["side"],
        "patch": size["patch"],
        "width": size["width"],
        "depth": size["depth"],
        "heads": size["heads"],
        "registers": registers,
        "layer_scale": layer_scale,
        "position_side": size["table"],
        "position_interpolation": interpolation,
        "targets": size["targets"],
    }


def image(side, seed=1, count=1):
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


def timm_model(name, size, registers=True):
    if name:
        return timm.create_model(name, pretrained=False, dynamic_img_size=True)
    return VisionTransformer(
        img_size=size["table"] * size["patch"],
        patch_size=size["patch"],
        embed_dim=size["width"],
        depth=size["depth"],
        num_heads=size["heads"],
        reg_tokens=4 if registers else 0,
        no_embed_class=registers,
        init_values=1e-5 if registers else None,
        num_classes=0,
        dynamic_img_size=True,
    )


def timm_outputs(model, images, targets):
    outputs = model.forward_intermediates(
        images, indices=targets, norm=False, output_fmt="NLC", intermediates_only=True, return_prefix_tokens=True
    )
    return torch.stack([torch.cat([prefix, patches], 1)[0] for patches, prefix in outputs])


def meta_model(size, antialias=False):
    """DINOv2 as Dinomaly builds it."""
    module = peers.dinomaly("dinov2.models.vision_transformer")
    layers = peers.dinomaly("dinov2.layers")
    return module.DinoVisionTransformer(
        img_size=size["table"] * size["patch"],
        patch_size=size["patch"],
        embed_dim=size["width"],
        depth=size["depth"],
        num_heads=size["heads"],
        block_fn=layers.Block,
        init_values=1e-5,
        block_chunks=0,
        num_register_tokens=4,
        interpolate_antialias=antialias,
        interpolate_offset=0.1,
    )


def meta_outputs(model, images, targets):
    tokens, outputs = model.prepare_tokens(images), []
    for index, block in enumerate(model.blocks[: targets[-1] + 1]):
        tokens = block(tokens)
        if index in targets:
            outputs.append(tokens[0])
    return torch.stack(outputs)


def hugging_face_model(size):
    return Dinov2WithRegistersModel(
        Dinov2WithRegistersConfig(
            hidden_size=size["width"],
            num_hidden_layers=size["depth"],
            num_attention_heads=size["heads"],
            mlp_ratio=4,
            image_size=size["table"] * size["patch"],
            patch_size=size["patch"],
            num_register_tokens=4,
        )
    )


def hugging_face_outputs(model, images, targets):
    outputs = []
    hooks = [
        model.encoder.layer[index].register_forward_hook(
            lambda _, __, output: outputs.append(output[0] if isinstance(output, tuple) else output)
        )
        for index in targets
    ]
    model(images)
    for hook in hooks:
        hook.remove()
    return torch.stack([output.reshape(output.shape[-2:]) for output in outputs])


@torch.no_grad()
def add(cases, name, size, kinds, inferred):
    """The cases of one size; `kinds` says which libraries' files are made of it."""
    images = image(size["side"])
    common = dict(kind="encoder", inferred=inferred)
    if "timm" in kinds:
        model = peers.enliven(timm_model(kinds["timm"], size), 2)
        file = cases.save(f"{name}_timm_weights.safetensors", model.state_dict())
        cases.add(
            name=f"{name}_timm",
            what=f"encoder {name}, timm's file, timm's positions",
            peers=["timm"],
            weights=file,
            architecture=architecture(size),
            tensors={"image": images[0], "outputs": timm_outputs(model, images, size["targets"])},
            **common,
        )
    if "meta" in kinds:
        model = peers.enliven(meta_model(size), 3)
        for key in kinds["meta"]:
            state = model.state_dict()
            file = f"{name}_original{'_in_' + key if key else ''}.pth"
            torch.save({key: state, "epoch": 3} if key else state, cases.path(file))
            cases.add(
                name=f"{name}_dinomaly" + (f"_{key}" if key else ""),
                what=f"encoder {name}, original .pth{f' under `{key}`' if key else ''}, Dinomaly's positions",
                peers=["dinomaly"],
                weights=file,
                architecture=architecture(size, "dinomaly"),
                tensors={"image": images[0], "outputs": meta_outputs(model, images, size["targets"])},
                **common,
            )
    if "hugging_face" in kinds:
        model = peers.enliven(hugging_face_model(size), 4)
        folder = cases.path(f"{name}_hugging_face")
        model.save_pretrained(folder)
        file = f"{name}_hugging_face_weights.safetensors"
        shutil.move(folder / "model.safetensors", cases.path(file))
        shutil.rmtree(folder)
        cases.add(
            name=f"{name}_hugging_face",
            what=f"encoder {name}, Hugging Face's file and positions",
            peers=["transformers"],
            weights=file,
            architecture=architecture(size),
            tensors={"image": images[0], "outputs": hugging_face_outputs(model, images, size["targets"])},
            **common,
        )


@torch.no_grad()
def add_plain(cases, name, model, size, inferred):
    """No registers, no LayerScale, and a slot for the class token in the position table."""
    model = peers.enliven(model, 5)
    images = image(size["side"])
    cases.add(
        kind="encoder",
        name="plain",
        what=f"encoder {name} without registers, timm's file",
        peers=["timm"],
        weights=cases.save("plain_weights.safetensors", model.state_dict()),
        architecture=architecture(size, registers=0, layer_scale=False),
        inferred=inferred,
        tensors={"image": images[0], "outputs": timm_outputs(model, images, size["targets"])},
    )


def add_small(cases):
    add(cases, "tiny", TINY, {"timm": None, "meta": [None, "model"], "hugging_face": True}, inferred=False)
    add_plain(cases, "tiny", timm_model(None, TINY, registers=False), TINY, inferred=False)
    torch.save({"epoch": 3}, cases.path("empty.pth"))


def add_full(cases):
    for name, size in SIZES.items():
        kinds = {"timm": f"vit_{name}_patch14_reg4_dinov2", "meta": [None], "hugging_face": True}
        if name == "small":
            kinds["meta"] = [None, "model", "state_dict"]
        add(cases, name, {**size, **DINOV2}, kinds, inferred=True)
    size = dict(width=192, depth=12, heads=3, targets=MIDDLE, patch=16, table=14, side=224)
    add_plain(cases, "ViT-Ti/16", timm_model("deit_tiny_patch16_224", size), size, inferred=True)
