"""The networks in PyTorch, with the tensor names of the peers' state dictionaries, one jet or event at a time.

Written from the publications and the names of the published weight files: LundNet (arXiv:2012.08526), ParticleNet
(arXiv:1902.08570) and Particle Transformer (arXiv:2202.03772) as weaver names them, JetCLR (arXiv:2108.04253), the networks
on events (PoS(ISGC2022)016) as DGL names them, deep sets (arXiv:1810.05165). A jet alone needs no padding, so nothing can
go wrong with it here.
"""

import numpy as np
import torch
from torch import nn
from torch.nn import functional


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
    def __init__(self, c):
        super().__init__()
        widths = c["widths"]
        self.bn_fts = nn.BatchNorm1d(c["input_features"])
        sizes = zip([c["input_features"]] + widths[:-1], widths)
        self.edge_convs = nn.ModuleList([LundEdgeConv(i, o) for i, o in sizes])
        self.fusion_block = nn.Sequential(nn.Linear(sum(widths), c["fusion"]), nn.ReLU(), nn.BatchNorm1d(c["fusion"]))
        hidden = nn.Sequential(nn.Linear(c["fusion"], c["head_hidden"]), nn.ReLU())
        self.fc = nn.Sequential(hidden, nn.Linear(c["head_hidden"], c["classes"]))

    def forward(self, x, kinematics, parents):
        child = torch.nonzero(parents >= 0).flatten()
        src, dst = torch.cat([child, parents[child]]), torch.cat([parents[child], child])
        x = self.bn_fts(x)
        outputs = []
        for conv in self.edge_convs:
            x = conv(x, src, dst)
            outputs.append(x)
        return self.fc(self.fusion_block(torch.cat(outputs, 1)).mean(0))


class ParticleEdgeConv(nn.Module):
    def __init__(self, k, inputs, widths):
        super().__init__()
        self.k = k
        before = [2 * inputs] + widths[:-1]
        self.convs = nn.ModuleList([nn.Conv2d(i, o, 1, bias=False) for i, o in zip(before, widths)])
        self.bns = nn.ModuleList([nn.BatchNorm2d(width) for width in widths])
        if inputs != widths[-1]:
            self.sc = nn.Conv1d(inputs, widths[-1], 1, bias=False)
            self.sc_bn = nn.BatchNorm1d(widths[-1])

    def forward(self, points, x):
        """points [n, D], x [n, C]"""
        side = self.sc_bn(self.sc(x.T[None]))[0].T if hasattr(self, "sc") else x
        k = min(self.k, len(x) - 1)
        if k == 0:
            return torch.relu(side)
        far = torch.cdist(points.double(), points.double(), compute_mode="donot_use_mm_for_euclid_dist")
        near = far.fill_diagonal_(torch.inf).topk(k, largest=False).indices
        own = x[:, None].expand(-1, k, -1)
        e = torch.cat([own, x[near] - own], 2).permute(2, 0, 1)[None]
        for conv, norm in zip(self.convs, self.bns):
            e = torch.relu(norm(conv(e)))
        return torch.relu(e.mean(3)[0].T + side)


class ParticleNet(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.config, inputs = c, c["input_features"]
        self.bn_fts = nn.BatchNorm1d(inputs)
        self.edge_convs = nn.ModuleList()
        for block in c["blocks"]:
            self.edge_convs.append(ParticleEdgeConv(block["neighbours"], inputs, block["widths"]))
            inputs = block["widths"][-1]
        if c["fusion"]:
            joined = sum(block["widths"][-1] for block in c["blocks"])
            inputs = c["fusion"]
            self.fusion_block = nn.Sequential(nn.Conv1d(joined, inputs, 1, bias=False), nn.BatchNorm1d(inputs), nn.ReLU())
        fc = []
        for width in c["head"]:
            fc.append(nn.Sequential(nn.Linear(inputs, width), nn.ReLU()))
            inputs = width
        self.fc = nn.Sequential(*fc, nn.Linear(inputs, c["classes"]))

    def forward(self, x, kinematics, parents):
        real = len(x)
        places = self.config["points"] or [x.shape[1] - 2, x.shape[1] - 1]
        points, x = x[:, places], self.bn_fts(x)
        # Weaver's padding: slots without a particle hold 0 and lie far away.
        empty = max(self.config["slots"] - real, 0) if self.config["padding"] == "weaver" else 0
        outputs = []
        for conv in self.edge_convs:
            x = functional.pad(x, (0, 0, 0, empty))
            points = functional.pad(points, (0, 0, 0, empty), value=1e9)
            x = conv(points, x)[:real]
            points = x
            outputs.append(x)
        if self.config["fusion"]:
            x = self.fusion_block(torch.cat(outputs, 1).T[None])[0].T
        return self.fc(x.mean(0))


class TransformerBlock(nn.Module):
    def __init__(self, width, heads, hidden):
        super().__init__()
        self.pre_attn_norm = nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, heads)
        self.post_attn_norm = nn.LayerNorm(width)
        self.pre_fc_norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, hidden)
        self.post_fc_norm = nn.LayerNorm(hidden)
        self.fc2 = nn.Linear(hidden, width)
        self.c_attn = nn.Parameter(torch.ones(heads))
        self.w_resid = nn.Parameter(torch.ones(width))

    def forward(self, x, token=None, pairs=None):
        if token is None:
            y = self.pre_attn_norm(x)
            seen = self.attn(y, y, y, attn_mask=pairs, need_weights=False)[0]
        else:
            y = self.pre_attn_norm(torch.cat([token, x]))
            seen = self.attn(token, y, y, need_weights=False)[0]
            x = token
        seen = seen.unflatten(1, (len(self.c_attn), -1)) * self.c_attn[:, None]
        x = x + self.post_attn_norm(seen.flatten(1))
        y = self.fc2(self.post_fc_norm(functional.gelu(self.fc1(self.pre_fc_norm(x)))))
        return y + self.w_resid * x


def pair_features(kinematics):
    """ln kT, ln z, ln Delta, ln m2 of all pairs, [n, n, 4], in double precision."""
    pt, y, phi, mass = kinematics.double().T
    d_phi = (phi[:, None] - phi + np.pi) % (2 * np.pi) - np.pi
    delta = torch.hypot(y[:, None] - y, d_phi)
    softer = torch.minimum(pt[:, None], pt)
    mt = torch.hypot(mass, pt)
    p = torch.stack([mt * torch.cosh(y), pt * torch.cos(phi), pt * torch.sin(phi), mt * torch.sinh(y)])
    p = p[:, :, None] + p[:, None]
    m2 = p[0] ** 2 - (p[1:] ** 2).sum(0)
    columns = [softer * delta, softer / (pt[:, None] + pt), delta, m2]
    return torch.stack([x.clamp(min=1e-8).log() for x in columns], 2).float()


class ParticleTransformer(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.embed = nn.Module()
        self.embed.input_bn = nn.BatchNorm1d(c["input_features"])
        layers, width = [], c["input_features"]
        for outputs in c["embed"]:
            layers += [nn.LayerNorm(width), nn.Linear(width, outputs), nn.GELU()]
            width = outputs
        self.embed.embed = nn.Sequential(*layers)
        layers, inputs = [nn.BatchNorm1d(4)], 4
        for outputs in c["pair"] + [c["heads"]]:
            layers += [nn.Conv1d(inputs, outputs, 1), nn.BatchNorm1d(outputs), nn.GELU()]
            inputs = outputs
        self.pair_embed = nn.Module()
        self.pair_embed.embed = nn.Sequential(*layers)
        block = lambda: TransformerBlock(width, c["heads"], c["hidden"])
        self.blocks = nn.ModuleList([block() for _ in range(c["blocks"])])
        self.cls_blocks = nn.ModuleList([block() for _ in range(c["class_blocks"])])
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.norm = nn.LayerNorm(width)
        self.fc = nn.Sequential(nn.Linear(width, c["classes"]))

    def forward(self, x, kinematics, parents):
        n = len(x)
        pairs = self.pair_embed.embed(pair_features(kinematics).reshape(1, n * n, 4).transpose(1, 2))
        pairs = pairs.reshape(-1, n, n)
        x = self.embed.embed(self.embed.input_bn(x))
        for block in self.blocks:
            x = block(x, pairs=pairs)
        token = self.cls_token[0]
        for block in self.cls_blocks:
            token = block(x, token)
        return self.fc(self.norm(token))[0]


class JetClr(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.config, width = c, c["width"]
        self.embedding = nn.Linear(c["input_features"], width)
        layer = nn.TransformerEncoderLayer(width, c["heads"], c["feed_forward"])
        self.transformer = nn.TransformerEncoder(layer, c["layers"], enable_nested_tensor=False)
        widths = [width, *c["projection"]]
        self.head_layers = nn.ModuleList([nn.Linear(i, o) for i, o in zip(widths, widths[1:])])
        self.classifier = nn.Linear(widths[-1], c["classes"])

    def forward(self, x, kinematics, parents):
        weights, mask = torch.ones(len(x)), None
        if self.config["mask"] == "continuous":
            weights = kinematics[:, 0] / 600
            mask = (0.5 * weights.log()).expand(len(x), -1)
        x = self.transformer(self.embedding(x)[:, None], mask=mask)[:, 0]
        x = (x * weights[:, None]).sum(0)
        for layer in self.head_layers:
            x = layer(torch.relu(x))
        return self.classifier(x)


class EventLayer(nn.Module):
    def __init__(self, inputs, width, heads):
        super().__init__()
        self.heads = heads
        self.fc_src = nn.Linear(inputs, width, bias=False)
        if heads:
            self.attn = nn.Parameter(torch.zeros(1, heads, width // heads))
        if inputs != width:
            self.res_fc = nn.Linear(inputs, width, bias=False)

    def forward(self, x):
        own = self.res_fc(x) if hasattr(self, "res_fc") else x
        u = self.fc_src(x)
        if not self.heads:
            return own + u.mean(0)
        u = u.unflatten(1, (self.heads, -1))
        scores = (functional.leaky_relu(u[:, None] + u, 0.2) * self.attn[0]).sum(3)
        return own + torch.einsum("ijh,jhd->ihd", scores.softmax(1), u).flatten(1)


class EventNetwork(nn.Module):
    def __init__(self, c):
        super().__init__()
        width = c["width"]
        inputs = [c["input_features"]] + [width] * (c["layers"] - 1)
        self.convs = nn.ModuleList([EventLayer(i, width, c.get("heads")) for i in inputs])
        self.bns = nn.ModuleList([nn.BatchNorm1d(width) for _ in inputs])
        widths = [width, *c["head_hidden"]]
        if c["head_hidden"]:
            self.fc_hidden = nn.ModuleList([nn.Linear(i, o) for i, o in zip(widths, widths[1:])])
        self.fc = nn.Linear(widths[-1], c["classes"])

    def forward(self, x, kinematics, parents):
        for conv, norm in zip(self.convs, self.bns):
            x = torch.relu(norm(conv(x)))
        x = x.mean(0)
        for layer in getattr(self, "fc_hidden", []):
            x = torch.relu(layer(x))
        return self.fc(x)


class DeepSets(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.flow, phi, f = c["flow"], c["phi"], c["f"]
        block = lambda i, o: nn.Sequential(nn.Linear(i, o), nn.ReLU())
        self.phi = nn.Sequential(*[block(i, o) for i, o in zip([c["input_features"]] + phi[:-1], phi)])
        layers = [block(i, o) for i, o in zip([phi[-1]] + f[:-1], f)]
        self.fc = nn.Sequential(*layers, nn.Linear(f[-1], c["classes"]))

    def forward(self, x, kinematics, parents):
        pt = kinematics[:, 0] if self.flow == "energy" else None
        weights = torch.ones(len(x)) if pt is None else pt / pt.sum()
        return self.fc((self.phi(x) * weights[:, None]).sum(0))


class Mlp(nn.Module):
    def __init__(self, c):
        super().__init__()
        widths = [c["input_features"], *c["hidden"]]
        self.norm = nn.BatchNorm1d(widths[0])
        self.layers = nn.ModuleList([nn.Linear(i, o) for i, o in zip(widths, widths[1:])])
        self.output = nn.Linear(widths[-1], c["classes"])

    def forward(self, x, kinematics, parents):
        x = self.norm(x)
        for layer in self.layers:
            x = torch.relu(layer(x))
        return self.output(x)[0]


NETWORKS = {
    "lundnet": LundNet,
    "particlenet": ParticleNet,
    "particle-transformer": ParticleTransformer,
    "jetclr": JetClr,
    "event-gnn": EventNetwork,
    "event-gat": EventNetwork,
    "deep-sets": DeepSets,
    "mlp": Mlp,
}
# Weaver's example networks hold the network as `mod`.
PREFIXED = {"particlenet", "particle-transformer"}


def build(kind, config):
    network = NETWORKS[kind](config)
    if kind not in PREFIXED:
        return network, network
    whole = nn.Module()
    whole.mod = network
    return whole, network
