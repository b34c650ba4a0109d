"""LundNet-5 (arXiv:2012.08526) in PyTorch, with the tensor names of the authors' weight files.

eager: per edge, Theta(x_dst - x_src) + Phi(x_src), as the paper and its DGL code write it
split: the linear maps act on nodes before the gather
"""

import numpy as np
import torch
from torch import nn

WIDTHS = [32, 32, 64, 64, 128, 128]
ROWS = [{"name": "LundNet-5", "kind": "lundnet", "config": {"input_features": 5}, "loss": "cross-entropy", "jets": 256}]


def batch(row, random, fill=1.0):
    """Random trees of 50 to 60 declusterings, as jets have without a cut, at most two children a node."""
    jet_offsets, parents = [0], []
    for _ in range(row["jets"]):
        first, nodes = jet_offsets[-1], max(1, round(fill * random.integers(50, 61)))
        children = np.zeros(nodes, int)
        parents.append(-1)
        for node in range(1, nodes):
            # Mostly the newest node that still has room: long chains, as in a jet's primary plane.
            parent = node - 1 if random.random() < 0.6 else int(random.integers(node))
            while children[parent] >= 2:
                parent = (parent + 1) % node
            children[parent] += 1
            parents.append(first + parent)
        jet_offsets.append(first + nodes)
    neighbours = [[] for _ in parents]
    for node, parent in enumerate(parents):
        if parent >= 0:
            neighbours[node].append(parent)
            neighbours[parent].append(node)
    in_offsets = np.cumsum([0] + [len(near) for near in neighbours])
    return {
        "features": random.normal(size=(len(parents), 5)).astype(np.float32),
        "jet_offsets": np.array(jet_offsets, np.int32),
        "in_offsets": in_offsets.astype(np.int32),
        "senders": np.concatenate([np.array(near, np.int32) for near in neighbours]),
        "labels": random.integers(0, 2, row["jets"]).astype(np.int64),
    }


def gigaflop(row, batch):
    """A training step: forward, and two products of the same size for each in the backward; maps on nodes."""
    nodes, edges = len(batch["features"]), len(batch["senders"])
    forward = edges * 43_008 + nodes * (63_808 + 10_400 + 172_032) + row["jets"] * 98_816
    return 6e-9 * forward


class EdgeConv(nn.Module):
    def __init__(self, inputs, outputs, split):
        super().__init__()
        self.split = split
        self.theta = nn.Linear(inputs, outputs, bias=False)
        self.phi = nn.Linear(inputs, outputs, bias=False)
        self.fcs = nn.ModuleList([nn.Linear(outputs, outputs, bias=False)])
        self.bns = nn.ModuleList([nn.BatchNorm1d(outputs) for _ in range(2)])
        if inputs != outputs:
            self.sc = nn.Linear(inputs, outputs, bias=False)
            self.sc_bn = nn.BatchNorm1d(outputs)
        self.identity = inputs == outputs

    def forward(self, x, src, dst, inverse_degree):
        if self.split:
            theta = self.theta(x)
            e = theta.index_select(0, dst) + (self.phi(x) - theta).index_select(0, src)
        else:
            sender = x.index_select(0, src)
            e = self.theta(x.index_select(0, dst) - sender) + self.phi(sender)
        e = torch.relu(self.bns[0](e))
        e = torch.relu(self.bns[1](self.fcs[0](e)))
        a = torch.zeros(x.shape[0], e.shape[1]).index_add(0, dst, e) * inverse_degree
        s = x if self.identity else self.sc_bn(self.sc(x))
        return torch.relu(a + s)


class LundNet(nn.Module):
    def __init__(self, features, split):
        super().__init__()
        self.bn_fts = nn.BatchNorm1d(features)
        self.edge_convs = nn.ModuleList(
            [EdgeConv(i, o, split) for i, o in zip([features] + WIDTHS[:-1], WIDTHS)]
        )
        self.fusion_block = nn.Sequential(nn.Linear(sum(WIDTHS), 384), nn.ReLU(), nn.BatchNorm1d(384))
        self.fc = nn.Sequential(nn.Sequential(nn.Linear(384, 256), nn.ReLU()), nn.Linear(256, 2))

    def forward(self, x, src, dst, inverse_degree, jet, inverse_size):
        x = self.bn_fts(x)
        outputs = []
        for conv in self.edge_convs:
            x = conv(x, src, dst, inverse_degree)
            outputs.append(x)
        x = self.fusion_block(torch.cat(outputs, 1))
        x = torch.zeros(inverse_size.shape[0], x.shape[1]).index_add(0, jet, x) * inverse_size
        return self.fc(x)


def modules(row):
    return {"eager": LundNet(5, False), "split": LundNet(5, True)}


def inputs(row, batch, variant):
    tensors = {name: torch.from_numpy(values) for name, values in batch.items()}
    degrees, sizes = tensors["in_offsets"].diff().long(), tensors["jet_offsets"].diff().long()
    return (
        tensors["features"],
        tensors["senders"].long(),
        torch.repeat_interleave(torch.arange(len(degrees)), degrees),
        (1.0 / degrees.clamp(min=1).float())[:, None],
        torch.repeat_interleave(torch.arange(len(sizes)), sizes),
        (1.0 / sizes.float())[:, None],
    )
