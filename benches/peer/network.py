"""MVMCAD in PyTorch, as src/model has it by default, written the way PyTorch runs it best.

Parameters bear the names of a bundle's tensors, so that both sides compute the same network.
"""

import torch
from torch import nn
from torch.nn import functional as F

SIDE, PATCH, REGISTERS = 392, 14, 4
GRID = SIDE // PATCH
LEADING = 1 + REGISTERS
TARGETS = range(2, 10)
DECODER_DEPTH = 8
SIZES = {"tiny": (64, 1), "small": (384, 6), "base": (768, 12), "large": (1024, 16)}
# The large encoder has 24 blocks; a target every second one.
OTHER_TARGETS = {"tiny": range(4), "large": range(4, 20, 2)}


class EncoderBlock(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.qkv = nn.Linear(width, 3 * width)
        self.projection = nn.Linear(width, width)
        self.scale1 = nn.Parameter(torch.empty(width))
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)
        self.scale2 = nn.Parameter(torch.empty(width))

    def forward(self, tokens):
        attended = attention(self.qkv(self.norm1(tokens)), self.heads)
        tokens = tokens + self.scale1 * self.projection(attended)
        return tokens + self.scale2 * self.fc2(F.gelu(self.fc1(self.norm2(tokens))))


class DecoderBlock(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width, eps=1e-8)
        self.qkv = nn.Linear(width, 3 * width)
        self.projection = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width, eps=1e-8)
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, tokens):
        tokens = tokens + self.projection(linear_attention(self.qkv(self.norm1(tokens)), self.heads))
        return tokens + self.fc2(F.gelu(self.fc1(self.norm2(tokens))))


def split(projected, heads):
    batch, tokens, width = projected.shape
    parts = projected.reshape(batch, tokens, 3, heads, width // 3 // heads)
    return parts.permute(2, 0, 3, 1, 4).unbind(0)


def merge(heads):
    return heads.transpose(1, 2).flatten(2)


def attention(projected, heads):
    return merge(F.scaled_dot_product_attention(*split(projected, heads)))


def linear_attention(projected, heads):
    queries, keys, values = split(projected, heads)
    queries, keys = F.elu(queries) + 1, F.elu(keys) + 1
    denominators = (queries * keys.sum(2, keepdim=True)).sum(-1, keepdim=True)
    return merge(queries @ (keys.transpose(-2, -1) @ values) / (denominators + 1e-6))


class Encoder(nn.Module):
    """The means of the two halves of the target blocks."""

    def __init__(self, width, heads, targets=TARGETS):
        super().__init__()
        self.targets = targets
        self.patch = nn.Linear(3 * PATCH * PATCH, width)
        self.class_ = nn.Parameter(torch.empty(1, 1, width))
        self.registers = nn.Parameter(torch.empty(1, REGISTERS, width))
        self.position = nn.Parameter(torch.empty(1, GRID * GRID, width))
        self.blocks = nn.ModuleList(EncoderBlock(width, heads) for _ in range(targets[-1] + 1))

    def forward(self, images):
        kernel = self.patch.weight.reshape(-1, 3, PATCH, PATCH)
        patches = F.conv2d(images, kernel, self.patch.bias, stride=PATCH).flatten(2).transpose(1, 2)
        leading = torch.cat([self.class_, self.registers], 1).expand(len(images), -1, -1)
        tokens = torch.cat([leading, patches + self.position], 1)
        outputs = []
        for index, block in enumerate(self.blocks):
            tokens = block(tokens)
            if index in self.targets:
                outputs.append(tokens)
        half = len(outputs) // 2
        return sum(outputs[:half]) / half, sum(outputs[half:]) / half


class Amplification(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width, eps=1e-8)
        self.qkv = nn.Linear(width, 3 * width)
        self.mix = nn.Linear(width, width)
        self.temperature = nn.Parameter(torch.empty(heads))
        self.output = nn.Linear(width, width)

    def forward(self, tokens):
        features = self.mix(attention(self.qkv(self.norm(tokens)), self.heads))
        features = features.unflatten(2, (self.heads, -1)).transpose(1, 2)
        squares = features.square()
        prominence = (squares / (squares.sum(2, keepdim=True) + 1e-24)).sum(-1)
        weights = F.softmax(prominence * self.temperature[:, None], 1)
        over_tokens = weights / (weights.sum(-1, keepdim=True) + 1e-8)
        moments = over_tokens.unsqueeze(2) @ squares
        amplified = features * weights.unsqueeze(-1) * (-1 / (moments + 1))
        return tokens + self.output(merge(amplified))


class Mvmcad(nn.Module):
    """Images to the anomaly of each patch."""

    def __init__(self, width, heads, targets=TARGETS):
        super().__init__()
        self.encoder = Encoder(width, heads, targets)
        self.bottleneck = nn.ModuleDict(
            {"fc1": nn.Linear(width, 4 * width), "fc2": nn.Linear(4 * width, width)}
        )
        self.amplification = Amplification(width, heads)
        self.decoder = nn.ModuleList(DecoderBlock(width, heads) for _ in range(DECODER_DEPTH))

    def forward(self, images):
        shallow, deep = self.encoder(images)
        tokens = (shallow + deep) * 0.5
        tokens = self.bottleneck["fc2"](F.gelu(self.bottleneck["fc1"](tokens)))
        tokens = self.amplification(tokens)
        outputs = []
        for block in self.decoder:
            tokens = block(tokens)
            outputs.append(tokens)
        half = DECODER_DEPTH // 2
        first, second = sum(outputs[:half]) / half, sum(outputs[half:]) / half
        pairs = (shallow, second), (deep, first)
        return sum(1 - F.cosine_similarity(a[:, LEADING:], b[:, LEADING:], dim=-1) for a, b in pairs) / 2


def random_network(size, seed=1):
    """Values of the sizes that trained networks have: what is computed is no shortcut."""
    torch.manual_seed(seed)
    network = Mvmcad(*SIZES[size], OTHER_TARGETS.get(size, TARGETS)).eval().requires_grad_(False)
    for name, value in network.named_parameters():
        kind = name.rsplit(".", 1)[-1]
        if kind == "temperature" or ("norm" in name and kind == "weight"):
            nn.init.normal_(value, 1.0, 0.1)
        elif kind in ("scale1", "scale2"):
            nn.init.normal_(value, 0.3, 0.05)
        else:
            nn.init.normal_(value, 0.0, 0.03)
    return network


def bundle_tensors(network):
    return {name.replace("class_", "class"): value.contiguous() for name, value in network.state_dict().items()}
