"""The networks on events of PoS(ISGC2022)016 in PyTorch, with the tensor names of DGL's layers.

eager: messages along an edge list, as DGL's GATv2Conv computes them: gather both ends, scores, softmax over the edges
       that end in a node, weighted sum into the node; the mean message of the GNN likewise
split: events of one size as a dense batch [events, objects, width]: pairs by broadcasting, messages as a product of
       matrices; the mean message of the GNN is taken before its linear map, one product an event
Every layer is followed by BatchNorm over all nodes and a ReLU; mean over nodes; a linear map to the classes.
"""

import numpy as np
import torch
from torch import nn

ROWS = [
    {"name": "GATv2, 2048 events", "kind": "event-gat", "config": {}, "loss": "cross-entropy", "events": 2048},
    {"name": "GATv2, 256 events", "kind": "event-gat", "config": {}, "loss": "cross-entropy", "events": 256},
    {"name": "event GNN, 256 events", "kind": "event-gnn", "config": {}, "loss": "cross-entropy", "events": 256},
]
FEATURES, LAYERS, WIDTH, HEADS, OBJECTS = 5, 6, 256, 4, 6


def batch(row, random, fill=1.0):
    """Events of six objects; with fill below 1, of one to six with that mean share of them."""
    sizes = np.full(row["events"], OBJECTS)
    if fill < 1.0:
        sizes = 1 + random.binomial(OBJECTS - 1, max(0.0, (fill * OBJECTS - 1) / (OBJECTS - 1)), row["events"])
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    return {
        "features": random.normal(size=(offsets[-1], FEATURES)).astype(np.float32),
        "jet_offsets": offsets.astype(np.int32),
        "labels": random.integers(0, 2, row["events"]).astype(np.int64),
    }


def gigaflop(row, batch):
    """A training step: forward, and two products of the same size for each in the backward (one in the first layer)."""
    nodes, events = len(batch["features"]), row["events"]
    rows = nodes if row["kind"] == "event-gat" else events
    pairs = int((np.diff(batch["jet_offsets"]).astype(np.int64) ** 2).sum()) if row["kind"] == "event-gat" else 0
    products = 6 * (LAYERS - 1) * rows * WIDTH**2 + 4 * FEATURES * WIDTH * (rows + nodes) + 6 * events * WIDTH * 2
    # Scores and weighted sums, and their backward, at 2 and 4 multiply-adds a pair and column.
    return 1e-9 * (products + 12 * LAYERS * pairs * WIDTH)


class Layer(nn.Module):
    def __init__(self, inputs, kind, split):
        super().__init__()
        self.attends, self.split = kind == "event-gat", split
        self.fc_src = nn.Linear(inputs, WIDTH, bias=False)
        nn.init.xavier_normal_(self.fc_src.weight, gain=2**0.5)
        if self.attends:
            self.attn = nn.Parameter(torch.empty(1, HEADS, WIDTH // HEADS))
            nn.init.xavier_normal_(self.attn, gain=2**0.5)
        if inputs != WIDTH:
            self.res_fc = nn.Linear(inputs, WIDTH, bias=False)
            nn.init.xavier_normal_(self.res_fc.weight, gain=2**0.5)

    def forward(self, x, *graph):
        residual = self.res_fc(x) if hasattr(self, "res_fc") else x
        message = self.dense(x, *graph) if self.split else self.along_edges(x, *graph)
        return message + residual

    def along_edges(self, x, src, dst, inverse_degree):
        u = self.fc_src(x)
        if not self.attends:
            total = torch.zeros_like(u).index_add(0, dst, u.index_select(0, src))
            return total * inverse_degree
        u = u.view(-1, HEADS, WIDTH // HEADS)
        sent = u.index_select(0, src)
        active = nn.functional.leaky_relu(sent + u.index_select(0, dst), 0.2)
        scores = (active * self.attn).sum(-1)
        index = dst[:, None].expand_as(scores)
        largest = torch.full_like(scores[: len(x)], -torch.inf).scatter_reduce(0, index, scores.detach(), "amax")
        weights = torch.exp(scores - largest.index_select(0, dst))
        total = torch.zeros_like(largest).index_add(0, dst, weights)
        weights = weights / total.index_select(0, dst)
        return torch.zeros_like(u).index_add(0, dst, sent * weights[..., None]).flatten(1)

    def dense(self, x, events):
        if not self.attends:
            message = self.fc_src(x.view(events, -1, x.shape[1]).mean(1))
            return message[:, None].expand(-1, len(x) // events, -1).reshape(len(x), WIDTH)
        u = self.fc_src(x).view(events, -1, HEADS, WIDTH // HEADS)
        active = nn.functional.leaky_relu(u[:, :, None] + u[:, None], 0.2)
        weights = torch.softmax((active * self.attn).sum(-1), 2)
        return torch.einsum("bijh,bjhd->bihd", weights, u).reshape(len(x), WIDTH)


class EventNetwork(nn.Module):
    def __init__(self, kind, split):
        super().__init__()
        self.split = split
        self.convs = nn.ModuleList([Layer(FEATURES if at == 0 else WIDTH, kind, split) for at in range(LAYERS)])
        self.bns = nn.ModuleList([nn.BatchNorm1d(WIDTH) for _ in range(LAYERS)])
        self.fc = nn.Linear(WIDTH, 2)

    def forward(self, x, event, inverse_size, *graph):
        for conv, norm in zip(self.convs, self.bns):
            x = torch.relu(norm(conv(x, *graph)))
        if self.split:
            return self.fc(x.view(len(inverse_size), -1, WIDTH).mean(1))
        total = torch.zeros(len(inverse_size), WIDTH).index_add(0, event, x)
        return self.fc(total * inverse_size)


def modules(row):
    eager, split = EventNetwork(row["kind"], False), EventNetwork(row["kind"], True)
    split.load_state_dict(eager.state_dict())
    return {"eager": eager, "split": split}


def inputs(row, batch, variant):
    sizes = np.diff(batch["jet_offsets"])
    event = torch.from_numpy(np.repeat(np.arange(len(sizes)), sizes))
    inverse_size = torch.from_numpy(1.0 / sizes.astype(np.float32))[:, None]
    features = torch.from_numpy(batch["features"])
    if variant == "split":
        if (sizes != sizes[0]).any():
            raise SystemExit("the dense form takes events of one size")
        return features, event, inverse_size, len(sizes)
    starts = batch["jet_offsets"]
    src = np.concatenate([np.repeat(np.arange(a, b), b - a) for a, b in zip(starts[:-1], starts[1:])])
    dst = np.concatenate([np.tile(np.arange(a, b), b - a) for a, b in zip(starts[:-1], starts[1:])])
    return features, event, inverse_size, torch.from_numpy(src), torch.from_numpy(dst), inverse_size.index_select(0, event)
