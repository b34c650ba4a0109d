"""JetCLR's encoder (arXiv:2108.04253) with NT-Xent in PyTorch, with the tensor names of the authors' code.

eager: PyTorch's own encoder layers on padded jets, with a padding mask; the sum over the jet leaves padding out
split: one product for queries, keys and values and fused attention (scaled_dot_product_attention) by hand; jets that
       are all full need no mask
"""

import numpy as np
import torch
from torch import nn
from torch.nn import functional

CONFIG = {
    "input_features": 3,
    "width": 256,
    "heads": 4,
    "feed_forward": 1024,
    "layers": 4,
    "projection": [256, 256],
    "mask": "hard",
}
ROWS = [
    {"name": "JetCLR encoder, NT-Xent", "kind": "jetclr", "config": CONFIG, "loss": "nt-xent", "jets": 128, "slots": 50}
]


def batch(row, random, fill=1.0):
    """Two views of 64 jets, one after the other; constituents fall off in transverse momentum."""
    slots, half = row["slots"], row["jets"] // 2
    if fill == 1.0:
        sizes = np.full(half, slots)
    else:
        sizes = np.clip(random.poisson(fill * slots, half), 1, slots)
    views = []
    jets = [random.normal(size=(n, 3)) * [0.0, 0.2, 0.2] + np.c_[np.sort(random.exponential(1.0, n))[::-1], np.zeros((n, 2))]
            for n in sizes]
    for _ in range(2):
        for jet in jets:
            angle = random.uniform(0, 2 * np.pi)
            turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
            view = jet @ turn.T
            view[:, 0] /= view[:, 0].sum()
            views.append(view + random.normal(size=view.shape) * [0.0, 0.01, 0.01])
    features = np.concatenate(views).astype(np.float32)
    kinematics = np.c_[600 * features[:, 0], features[:, 1:], np.zeros(len(features))].astype(np.float32)
    return {
        "features": features,
        "jet_offsets": np.cumsum(np.r_[0, sizes, sizes]).astype(np.int32),
        "kinematics": kinematics,
        "labels": np.zeros(row["jets"], np.int64),
    }


def gigaflop(row, batch):
    """A training step: forward, and two products of the same size for each in the backward."""
    config, sizes = row["config"], np.diff(batch["jet_offsets"]).astype(float)
    d, h = config["width"], config["feed_forward"]
    layer = sizes.sum() * (4 * d * d + 2 * d * h) + (sizes**2).sum() * 2 * d
    ends = sizes.sum() * config["input_features"] * d + len(sizes) * 2 * d * d
    return 6e-9 * (config["layers"] * layer + ends)


class Eager(nn.Module):
    def __init__(self, config):
        super().__init__()
        d = config["width"]
        self.embedding = nn.Linear(config["input_features"], d)
        layer = nn.TransformerEncoderLayer(d, config["heads"], config["feed_forward"], dropout=0.1)
        self.transformer = nn.TransformerEncoder(layer, config["layers"], enable_nested_tensor=False)
        widths = [d, *config["projection"]]
        self.head_layers = nn.ModuleList([nn.Linear(i, o) for i, o in zip(widths, widths[1:])])

    def project(self, x):
        for layer in self.head_layers:
            x = layer(functional.relu(x))
        return x

    def forward(self, x, padding):
        # [slots, jets, width], as the work has it.
        x = self.embedding(x.transpose(0, 1))
        x = self.transformer(x, src_key_padding_mask=padding)
        x = x.masked_fill(padding.T[:, :, None], 0.0)
        return self.project(x.sum(0))


class Split(Eager):
    def forward(self, x, padding):
        jets, slots = x.shape[:2]
        x = self.embedding(x)
        d = x.shape[2]
        keep = None if padding is None else ~padding[:, None, None, :]
        for layer in self.transformer.layers:
            attention = layer.self_attn
            joined = functional.linear(x, attention.in_proj_weight, attention.in_proj_bias)
            q, k, v = joined.view(jets, slots, 3, attention.num_heads, -1).permute(2, 0, 3, 1, 4)
            rate = attention.dropout if self.training else 0.0
            seen = functional.scaled_dot_product_attention(q, k, v, attn_mask=keep, dropout_p=rate)
            seen = attention.out_proj(seen.transpose(1, 2).reshape(jets, slots, d))
            x = layer.norm1(x + layer.dropout1(seen))
            hidden = layer.dropout(functional.relu(layer.linear1(x)))
            x = layer.norm2(x + layer.dropout2(layer.linear2(hidden)))
        if padding is not None:
            x = x.masked_fill(padding[:, :, None], 0.0)
        return self.project(x.sum(1))


def modules(row):
    eager, split = Eager(row["config"]), Split(row["config"])
    split.load_state_dict(eager.state_dict())
    return {"eager": eager, "split": split}


def inputs(row, batch, variant):
    sizes = np.diff(batch["jet_offsets"])
    slots = int(sizes.max())
    padding = np.arange(slots)[None, :] >= sizes[:, None]
    padded = np.zeros((len(sizes), slots, row["config"]["input_features"]), np.float32)
    padded[~padding] = batch["features"]
    mask = torch.from_numpy(padding)
    if variant == "split" and not padding.any():
        mask = None
    return torch.from_numpy(padded), mask
