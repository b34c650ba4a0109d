"""Particle Transformer (arXiv:2202.03772) in PyTorch, with the tensor names of weaver's checkpoints.

eager: padded slots, PyTorch's multi-head attention with the pairs' bias as a mask, convolutions of width 1 on the pairs,
       as the original is written; statistics of the pairs run over the lower triangles
split: no multi-head module (one joined map, scaled_dot_product_attention), linear maps of rows for the pairs, the class
       token's keys and values as one product
"""

import math

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

WIDTH, HEADS, HIDDEN, BLOCKS, CLASS_BLOCKS = 128, 8, 512, 8, 2
ROWS = [
    {
        "name": "Particle Transformer",
        "kind": "particle-transformer",
        "config": {"input_features": 7, "classes": 2},
        "loss": "cross-entropy",
        "jets": 64,
        "slots": 64,
    }
]


def batch(row, random, fill=1.0):
    """Particles of a jet with falling momenta around its axis; with `fill` a uniform number from 2 fill - 1 to 1."""
    sizes = np.full(row["jets"], row["slots"])
    if fill < 1.0:
        sizes = np.round(row["slots"] * (fill + (1 - fill) * random.uniform(-1, 1, row["jets"]))).astype(int)
        sizes = np.maximum(sizes, 1)
    nodes = sizes.sum()
    kinematics = np.stack(
        [
            np.exp(random.normal(1.5, 1.2, nodes)),
            random.normal(0, 0.25, nodes),
            random.normal(0, 0.25, nodes),
            np.where(random.random(nodes) < 0.3, 0.0, 0.13957),
        ],
        1,
    )
    return {
        "features": random.normal(size=(nodes, 7)).astype(np.float32),
        "kinematics": kinematics.astype(np.float32),
        "jet_offsets": np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32),
        "labels": random.integers(0, 2, row["jets"]).astype(np.int64),
    }


def gigaflop(row, batch):
    """A training step: forward, and two products of the same size for each in the backward."""
    sizes = np.diff(batch["jet_offsets"]).astype(float)
    nodes, pairs, square = sizes.sum(), (sizes * (sizes + 1) / 2).sum(), (sizes**2).sum()
    embed = 7 * 128 + 128 * 512 + 512 * 128
    block = WIDTH * (4 * WIDTH + 2 * HIDDEN)
    # Keys and values of the class blocks act on the token only.
    token = CLASS_BLOCKS * (block + 2 * WIDTH * WIDTH)
    forward = nodes * (embed + BLOCKS * block + 2 * CLASS_BLOCKS * HEADS * WIDTH) + row["jets"] * token
    forward += BLOCKS * 2 * square * WIDTH + pairs * (4 * 64 + 64 * 64 + 64 * 64 + 64 * 8)
    return 6e-9 * forward


def pair_features(p, left, right):
    """ln kT, ln z, ln Delta, ln m2 of pairs of rows of px, py, pz, E, rapidity, azimuth, pt."""
    a, b = p[left], p[right]
    d_phi = (a[:, 5] - b[:, 5] + math.pi) % (2 * math.pi) - math.pi
    delta = torch.sqrt((a[:, 4] - b[:, 4]) ** 2 + d_phi**2)
    softer = torch.minimum(a[:, 6], b[:, 6])
    z = softer / (a[:, 6] + b[:, 6]).clamp(min=1e-8)
    s = a[:, :4] + b[:, :4]
    m2 = s[:, 3] ** 2 - (s[:, :3] ** 2).sum(1)
    return torch.log(torch.stack([softer * delta, z, delta, m2], 1).clamp(min=1e-8))


class Attention(nn.Module):
    """Holds the tensors of PyTorch's multi-head attention, under its names."""

    def __init__(self):
        super().__init__()
        self.in_proj_weight = nn.Parameter(torch.empty(3 * WIDTH, WIDTH))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * WIDTH))
        self.out_proj = nn.Linear(WIDTH, WIDTH)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)


class Block(nn.Module):
    def __init__(self, split, rate):
        super().__init__()
        self.split = split
        self.pre_attn_norm = nn.LayerNorm(WIDTH)
        self.attn = Attention() if split else nn.MultiheadAttention(WIDTH, HEADS, dropout=rate, batch_first=True)
        self.post_attn_norm = nn.LayerNorm(WIDTH)
        self.dropout = nn.Dropout(rate)
        self.pre_fc_norm = nn.LayerNorm(WIDTH)
        self.fc1 = nn.Linear(WIDTH, HIDDEN)
        self.act_dropout = nn.Dropout(rate)
        self.post_fc_norm = nn.LayerNorm(HIDDEN)
        self.fc2 = nn.Linear(HIDDEN, WIDTH)
        self.c_attn = nn.Parameter(torch.ones(HEADS))
        self.w_resid = nn.Parameter(torch.ones(WIDTH))

    def attend(self, query, keys, bias):
        """`bias`: [B, H, Q, K], minus infinity for padding."""
        if not self.split:
            return self.attn(query, keys, keys, attn_mask=bias.flatten(0, 1), need_weights=False)[0]
        weight, offset = self.attn.in_proj_weight, self.attn.in_proj_bias
        if query is keys:
            q, k, v = F.linear(query, weight, offset).chunk(3, -1)
        else:
            q = F.linear(query, weight[:WIDTH], offset[:WIDTH])
            k, v = F.linear(keys, weight[WIDTH:], offset[WIDTH:]).chunk(2, -1)
        heads = lambda x: x.unflatten(-1, (HEADS, -1)).transpose(1, 2)
        y = F.scaled_dot_product_attention(heads(q), heads(k), heads(v), attn_mask=bias)
        return self.attn.out_proj(y.transpose(1, 2).flatten(2))

    def forward(self, x, bias, token=None):
        if token is None:
            residual, u = x, self.pre_attn_norm(x)
            a = self.attend(u, u, bias)
        else:
            residual = token
            a = self.attend(token, self.pre_attn_norm(torch.cat([token, x], 1)), bias)
        a = (a.unflatten(-1, (HEADS, -1)) * self.c_attn[:, None]).flatten(-2)
        x = residual + self.dropout(self.post_attn_norm(a))
        h = self.act_dropout(F.gelu(self.fc1(self.pre_fc_norm(x))))
        return self.dropout(self.fc2(self.post_fc_norm(h))) + x * self.w_resid


class Embed(nn.Module):
    def __init__(self, features):
        super().__init__()
        self.input_bn = nn.BatchNorm1d(features)
        layers = []
        for i, o in zip([features, 128, 512], [128, 512, WIDTH]):
            layers += [nn.LayerNorm(i), nn.Linear(i, o), nn.GELU()]
        self.embed = nn.Sequential(*layers)

    def forward(self, x):
        return self.embed(self.input_bn(x))


class PairEmbed(nn.Module):
    def __init__(self, split):
        super().__init__()
        self.split = split
        layers = [nn.BatchNorm1d(4)]
        for i, o in zip([4, 64, 64, 64], [64, 64, 64, HEADS]):
            layers += [nn.Conv1d(i, o, 1), nn.BatchNorm1d(o), nn.GELU()]
        self.embed = nn.Sequential(*layers)

    def forward(self, features):
        if not self.split:
            return self.embed(features.t()[None])[0].t()
        x = features
        for layer in self.embed:
            x = F.linear(x, layer.weight[:, :, 0], layer.bias) if isinstance(layer, nn.Conv1d) else layer(x)
        return x


class ParticleTransformer(nn.Module):
    def __init__(self, features, classes, split, rate=0.1):
        super().__init__()
        self.embed = Embed(features)
        self.pair_embed = PairEmbed(split)
        self.blocks = nn.ModuleList([Block(split, rate) for _ in range(BLOCKS)])
        self.cls_blocks = nn.ModuleList([Block(split, 0.0) for _ in range(CLASS_BLOCKS)])
        self.norm = nn.LayerNorm(WIDTH)
        self.fc = nn.Sequential(nn.Linear(WIDTH, classes))
        self.cls_token = nn.Parameter(0.02 * torch.randn(1, 1, WIDTH))

    def forward(self, rows, p, left, right, cells, mirrored, slots, rows_of_slots, mask):
        """Rows are real particles; `slots` their places in [B, P], `cells` and `mirrored` those of pairs in [B, P, P]."""
        jets, length = mask.shape
        with torch.no_grad():
            features = pair_features(p, left, right)
        pairs = self.pair_embed(features)
        bias = torch.zeros(jets * length * length, HEADS).index_put((cells,), pairs).index_put((mirrored,), pairs)
        bias = bias.view(jets, length, length, HEADS).permute(0, 3, 1, 2)
        padding = torch.zeros(jets, 1, 1, length).masked_fill(~mask[:, None, None], float("-inf"))
        bias = (bias + padding).contiguous()
        x = torch.zeros(jets * length, WIDTH).index_put((slots,), self.embed(rows)).view(jets, length, WIDTH)
        for block in self.blocks:
            x = block(x, bias)
        asking = torch.cat([torch.zeros(jets, 1, 1, 1), padding], 3).expand(jets, HEADS, 1, length + 1)
        token = self.cls_token.expand(jets, 1, -1)
        for block in self.cls_blocks:
            token = block(x, asking, token)
        return self.fc(self.norm(token)[:, 0])


def modules(row):
    classes = row["config"]["classes"]
    return {"eager": ParticleTransformer(7, classes, False), "split": ParticleTransformer(7, classes, True)}


def inputs(row, batch, variant):
    k = torch.from_numpy(batch["kinematics"])
    pt, y, phi, mass = k.unbind(1)
    mt = torch.sqrt(pt**2 + mass**2)
    p = torch.stack([pt * phi.cos(), pt * phi.sin(), mt * y.sinh(), mt * y.cosh(), y, phi, pt], 1)
    offsets = batch["jet_offsets"].astype(int)
    length = int(np.diff(offsets).max())
    left, right, cells, mirrored, slots = [], [], [], [], []
    mask = np.zeros((len(offsets) - 1, length), bool)
    for jet, (first, last) in enumerate(zip(offsets[:-1], offsets[1:])):
        i, j = np.tril_indices(last - first)
        left.append(first + i)
        right.append(first + j)
        cells.append((jet * length + i) * length + j)
        mirrored.append((jet * length + j) * length + i)
        slots.append(jet * length + np.arange(last - first))
        mask[jet, : last - first] = True
    index = lambda parts: torch.from_numpy(np.concatenate(parts))
    rows = torch.from_numpy(batch["features"])
    return rows, p, index(left), index(right), index(cells), index(mirrored), index(slots), None, torch.from_numpy(mask)
