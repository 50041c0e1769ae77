"""The public code that the model is compared with, and what it needs to be imported.

Dinomaly, ToST and INP-Former are research repositories, no packages: their folders come from the
environment (DINOMALY_DIR, TOST_DIR, INP_FORMER_DIR; scripts/parity sets them).
"""

import importlib
import os
import sys
import warnings
from unittest.mock import MagicMock

import timm
import torch
import transformers

warnings.filterwarnings("ignore")

VERSIONS = {
    "dinomaly": "Dinomaly c5c76d0",
    "tost": "ToST 071ea98",
    "inp_former": "INP-Former 17d2653",
    "timm": f"timm {timm.__version__}",
    "transformers": f"transformers {transformers.__version__}",
    "torch": f"torch {torch.__version__.split('+')[0]}",
}

# Imported at the top of their modules for plots, data and metrics that nothing here touches.
UNUSED = ["adeval", "aug_funcs", "colorama", "cv2", "matplotlib", "matplotlib.pyplot", "pandas", "skimage", "tabulate"]


def load(variable, module, inside=""):
    """One module of a repository. Each repository has a `utils` and `models` of its own, so what it
    imported is forgotten afterwards."""
    folder = os.path.join(os.environ[variable], inside)
    before = set(sys.modules)
    stand_ins = {name: MagicMock() for name in UNUSED if name not in sys.modules}
    sys.modules.update(stand_ins)
    sys.path.insert(0, folder)
    try:
        return importlib.import_module(module)
    finally:
        sys.path.remove(folder)
        for name in set(sys.modules) - before:
            file = getattr(sys.modules[name], "__file__", None) or ""
            if name in stand_ins or str(file).startswith(folder):
                del sys.modules[name]


def dinomaly(module):
    return load("DINOMALY_DIR", module)


def tost_attention(width, heads):
    """ToST's token-statistics attention on features as they are: its own projection left out."""
    layer = load("TOST_DIR", "tost", "tost_vision").AttentionTSSA(width, heads)
    layer.qkv = torch.nn.Identity()
    return layer


def inp_former_loss():
    return load("INP_FORMER_DIR", "utils").global_cosine_hm_adaptive


@torch.no_grad()
def enliven(module, seed):
    """Values for every parameter that let each matter and none drown the others: at their usual first
    values biases are zero, norms are plain and LayerScale lets next to nothing through."""
    random = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        values = torch.randn(parameter.shape, generator=random)
        last = name.rsplit(".", 1)[-1]
        if last in ("gamma", "lambda1"):
            parameter.copy_(0.5 + 0.2 * values)
        elif last == "temp":
            parameter.copy_(1 + 2 * values)
        elif "norm" in name and last == "weight":
            parameter.copy_(1 + 0.3 * values)
        elif last == "bias":
            parameter.copy_(0.2 * values)
        elif parameter.dim() in (2, 4) and last == "weight":
            inputs = parameter[0].numel()
            parameter.copy_(values / inputs**0.5)
        else:
            parameter.copy_(0.5 * values)
    return module.eval()
