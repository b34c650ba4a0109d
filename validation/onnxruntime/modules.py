"""PyTorch modules of the networks with the names of the peers' state dictionaries, written from the publications."""

import numpy as np
import torch
from torch import nn


class LundEdgeConv(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.theta = nn.Linear(inputs, outputs, bias=False)
        self.phi = nn.Linear(inputs, outputs, bias=False)
        self.fcs = nn.ModuleList([nn.Linear(outputs, outputs, bias=False)])
        self.bns = nn.ModuleList([nn.BatchNorm1d(outputs) for _ in range(2)])
        if inputs != outputs:
            self.sc = nn.Linear(inputs, outputs, bias=False)
            self.sc_bn = nn.BatchNorm1d(outputs)
        self.identity = inputs == outputs

    def forward(self, x, src, dst):
        e = self.theta(x[dst] - x[src]) + self.phi(x[src])
        e = torch.relu(self.bns[1](self.fcs[0](torch.relu(self.bns[0](e)))))
        degree = torch.bincount(dst, minlength=len(x)).clamp(min=1)
        mean = torch.zeros(len(x), e.shape[1]).index_add(0, dst, e) / degree[:, None]
        return torch.relu(mean + (x if self.identity else self.sc_bn(self.sc(x))))


class LundNet(nn.Module):
    def __init__(self, features, widths, fusion, hidden, classes):
        super().__init__()
        self.bn_fts = nn.BatchNorm1d(features)
        self.edge_convs = nn.ModuleList([LundEdgeConv(i, o) for i, o in zip([features] + widths[:-1], widths)])
        self.fusion_block = nn.Sequential(nn.Linear(sum(widths), fusion), nn.ReLU(), nn.BatchNorm1d(fusion))
        self.fc = nn.Sequential(nn.Sequential(nn.Linear(fusion, hidden), nn.ReLU()), nn.Linear(hidden, classes))

    def forward(self, x, src, dst, jet, jets):
        x = self.bn_fts(x)
        outputs = []
        for conv in self.edge_convs:
            x = conv(x, src, dst)
            outputs.append(x)
        x = self.fusion_block(torch.cat(outputs, 1))
        sizes = torch.bincount(jet, minlength=jets)[:, None]
        return self.fc(torch.zeros(jets, x.shape[1]).index_add(0, jet, x) / sizes)


class DeepSets(nn.Module):
    def __init__(self, features, phi, f, classes):
        super().__init__()
        block = lambda i, o: nn.Sequential(nn.Linear(i, o), nn.ReLU())
        self.phi = nn.Sequential(*[block(i, o) for i, o in zip([features] + phi[:-1], phi)])
        layers = [block(i, o) for i, o in zip([phi[-1]] + f[:-1], f)]
        self.fc = nn.Sequential(*layers, nn.Linear(f[-1], classes))

    def forward(self, x, weights, jet, jets):
        x = self.phi(x) * weights[:, None]
        return self.fc(torch.zeros(jets, x.shape[1]).index_add(0, jet, x))


class Mlp(nn.Module):
    def __init__(self, features, hidden, classes):
        super().__init__()
        self.norm = nn.BatchNorm1d(features)
        self.layers = nn.ModuleList([nn.Linear(i, o) for i, o in zip([features] + hidden[:-1], hidden)])
        self.output = nn.Linear(hidden[-1], classes)

    def forward(self, x):
        x = self.norm(x)
        for layer in self.layers:
            x = torch.relu(layer(x))
        return self.output(x)


def build(facts):
    c = facts["config"]
    match facts["kind"]:
        case "lundnet":
            return LundNet(c["input_features"], c["widths"], c["fusion"], c["head_hidden"], c["classes"])
        case "deep-sets":
            return DeepSets(c["input_features"], c["phi"], c["f"], c["classes"])
        case "mlp":
            return Mlp(c["input_features"], c["hidden"], c["classes"])
    return None


def inputs(case):
    """Arguments of the module for all jets of a case."""
    offsets = case.offsets
    jets = len(offsets) - 1
    jet = torch.from_numpy(np.repeat(np.arange(jets), np.diff(offsets)))
    x = torch.from_numpy(case.features)
    match case.facts["kind"]:
        case "lundnet":
            first = offsets[:-1][jet.numpy()]
            child = np.flatnonzero(case.parents >= 0)
            parent = first[child] + case.parents[child]
            src, dst = np.concatenate([child, parent]), np.concatenate([parent, child])
            return x, torch.from_numpy(src), torch.from_numpy(dst), jet, jets
        case "deep-sets":
            weights = torch.ones(len(x))
            if case.facts["config"]["flow"] == "energy":
                pt = torch.from_numpy(case.kinematics[:, 0])
                weights = pt / torch.zeros(jets).index_add(0, jet, pt)[jet]
            return x, weights, jet, jets
        case "mlp":
            return (x,)
