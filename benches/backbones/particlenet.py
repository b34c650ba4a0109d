"""PyTorch's side of the ParticleNet rows of the backbone comparison.

Written from the paper (arXiv:1902.08570) and the names of weaver's weight files; jets of equal length, so that no
padding enters a statistic on either side and the losses must agree.

  eager   channels first, edge features [x_i, x_j - x_i] of every edge joined before the first convolution, as weaver does
  split   rows of edges, the first linear map on nodes before the gather, no transposition
"""

import numpy as np
import torch
from torch import nn


def _config(blocks, head):
    blocks = [{"neighbours": k, "widths": [width] * 3} for k, width in blocks]
    return {"input_features": 7, "blocks": blocks, "head": [head], "dropout": 0.0, "classes": 2}


ROWS = [
    {
        "name": "ParticleNet",
        "kind": "particlenet",
        "config": _config([(16, 64), (16, 128), (16, 256)], 256),
        "loss": "cross-entropy",
        "jets": 32,
        "constituents": 128,
    },
    {
        "name": "ParticleNet-Lite",
        "kind": "particlenet",
        "config": _config([(7, 32), (7, 64)], 128),
        "loss": "cross-entropy",
        "jets": 256,
        "constituents": 50,
    },
]


def batch(row, rng, fill=1.0):
    """Random jets; with `fill` below 1 that share of the slots is real, jets of different lengths."""
    jets, slots, columns = row["jets"], row["constituents"], row["config"]["input_features"]
    sizes = np.full(jets, slots)
    if fill < 1.0:
        spread = min(fill, 1.0 - fill)
        sizes = np.rint(slots * rng.uniform(fill - spread, fill + spread, jets)).astype(int).clip(1, slots)
    return {
        "features": rng.normal(size=(sizes.sum(), columns)).astype(np.float32),
        "jet_offsets": np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32),
        "labels": rng.integers(0, row["config"]["classes"], jets).astype(np.int64),
    }


def _neighbours(points, k):
    """Indices `[B, P, k]` of the nearest, from `points: [B, P, D]`."""
    squares = (points * points).sum(2)
    distances = squares[:, :, None] + squares[:, None, :] - 2 * points @ points.transpose(1, 2)
    return distances.topk(k + 1, dim=2, largest=False)[1][:, :, 1:]


class EdgeConvEager(nn.Module):
    def __init__(self, k, inputs, widths):
        super().__init__()
        self.k = k
        before = [2 * inputs] + widths[:-1]
        self.convs = nn.ModuleList([nn.Conv2d(i, o, 1, bias=False) for i, o in zip(before, widths)])
        self.bns = nn.ModuleList([nn.BatchNorm2d(width) for width in widths])
        if inputs != widths[-1]:
            self.sc = nn.Conv1d(inputs, widths[-1], 1, bias=False)
            self.sc_bn = nn.BatchNorm1d(widths[-1])
        self.identity = inputs == widths[-1]

    def forward(self, points, x):
        jets, columns, slots = x.shape
        nearest = _neighbours(points.transpose(1, 2), self.k)
        flat = (nearest + torch.arange(jets)[:, None, None] * slots).reshape(-1)
        # The gather of channels-first tensors that is fast on processors.
        sent = x.transpose(0, 1).reshape(columns, -1)[:, flat]
        sent = sent.reshape(columns, jets, slots, self.k).transpose(0, 1).contiguous()
        own = x[:, :, :, None].repeat(1, 1, 1, self.k)
        e = torch.cat((own, sent - own), 1)
        for conv, norm in zip(self.convs, self.bns):
            e = torch.relu(norm(conv(e)))
        side = x if self.identity else self.sc_bn(self.sc(x))
        return torch.relu(side + e.mean(3))


class EdgeConvSplit(EdgeConvEager):
    def forward(self, points, x):
        """`points: [B, P, D]`, `x: [B P, C]`."""
        jets, slots, _ = points.shape
        columns = x.shape[1]
        nearest = _neighbours(points, self.k)
        flat = (nearest + torch.arange(jets)[:, None, None] * slots).reshape(-1)
        own, other = self.convs[0].weight.flatten(1).split(columns, 1)
        width = own.shape[0]
        receiver, sender = (x @ torch.cat((own - other, other)).t()).split(width, 1)
        e = (receiver[:, None, :] + sender.index_select(0, flat).view(-1, self.k, width)).view(-1, width)
        for layer, norm in enumerate(self.bns):
            if layer > 0:
                e = nn.functional.linear(e, self.convs[layer].weight.flatten(1))
            # The same statistics as BatchNorm2d: over all edges.
            e = torch.relu(
                nn.functional.batch_norm(
                    e,
                    norm.running_mean,
                    norm.running_var,
                    norm.weight,
                    norm.bias,
                    self.training,
                    norm.momentum,
                    norm.eps,
                )
            )
        side = x if self.identity else self.sc_bn(nn.functional.linear(x, self.sc.weight.flatten(1)))
        return torch.relu(side + e.view(-1, self.k, e.shape[1]).mean(1))


class ParticleNet(nn.Module):
    """Names are those of weaver's weights, without the prefix of its example network."""

    def __init__(self, config, conv):
        super().__init__()
        self.split = conv is EdgeConvSplit
        inputs = config["input_features"]
        self.bn_fts = nn.BatchNorm1d(inputs)
        self.edge_convs = nn.ModuleList()
        for block in config["blocks"]:
            self.edge_convs.append(conv(block["neighbours"], inputs, block["widths"]))
            inputs = block["widths"][-1]
        fc = []
        for width in config["head"]:
            fc.append(nn.Sequential(nn.Linear(inputs, width), nn.ReLU(), nn.Dropout(config["dropout"])))
            inputs = width
        self.fc = nn.Sequential(*fc, nn.Linear(inputs, config["classes"]))

    def forward(self, points, x):
        if not self.split:
            x = self.bn_fts(x)
            for conv in self.edge_convs:
                x = conv(points, x)
                points = x
            return self.fc(x.mean(2))
        jets, slots, _ = points.shape
        x = self.bn_fts(x)
        for conv in self.edge_convs:
            x = conv(points, x)
            points = x.view(jets, slots, -1)
        return self.fc(x.view(jets, slots, -1).mean(1))


def modules(row):
    return {
        "eager": ParticleNet(row["config"], EdgeConvEager),
        "split": ParticleNet(row["config"], EdgeConvSplit),
    }


def inputs(row, batch, variant):
    """Jets of equal length only."""
    x = torch.from_numpy(batch["features"])
    jets = len(batch["labels"])
    dense = x.view(jets, -1, x.shape[1])
    if variant == "eager":
        return dense[:, :, -2:].transpose(1, 2).contiguous(), dense.transpose(1, 2).contiguous()
    return dense[:, :, -2:].contiguous(), x
