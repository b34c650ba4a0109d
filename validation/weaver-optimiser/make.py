"""Trajectories of weaver's Ranger, its `flat+decay` schedule and its weight-decay groups, as numbers to compare with.

    python make.py            writes expected.json beside this file

Needs weaver-core and torch. Nothing here is random: parameters, inputs and gradients are formulas. Weaver is only called,
through its own `init_opt`, as its training program does.
"""

import importlib.metadata
import json
import math
import pathlib
import types

import torch
import weaver.train

torch.set_num_threads(1)
STEPS = 26
RATE = 0.02


class Double:
    """While it is open, weaver's `.float()` keeps f64: its own arithmetic without f32's rounding."""

    def __enter__(self):
        self.kept = torch.Tensor.float
        torch.Tensor.float = lambda tensor: tensor if tensor.dtype == torch.float64 else self.kept(tensor)

    def __exit__(self, *_):
        torch.Tensor.float = self.kept


def arguments(**changes):
    values = dict(optimizer="ranger", start_lr=RATE, lr_scheduler="none", num_epochs=20, load_epoch=None, lr_finder=None,
                  steps_per_epoch=10, warmup_steps=0, compile_optimizer=False)
    return types.SimpleNamespace(**{**values, **changes})


# Given gradients.

SIZES = {"a.weight": 5, "head.bias": 3}


def start(name):
    return [math.sin(len(name) + 1.3 * i) for i in range(SIZES[name])]


def gradient(name, step):
    """Changing signs and sizes over six orders of magnitude; exact zeros in the first element of `head.bias`."""
    values = [math.sin(0.7 * step + 1.9 * i + len(name)) * 10.0 ** (i - 3) for i in range(SIZES[name])]
    if name == "head.bias":
        values[0] = 0.0
    return values


class Named(torch.nn.Module):
    """A module of bare parameters; dots become nested modules."""

    def __init__(self, tensors):
        super().__init__()
        for name, tensor in tensors.items():
            *path, last = name.split(".")
            module = self
            for part in path:
                if not hasattr(module, part):
                    module.add_module(part, torch.nn.Module())
                module = getattr(module, part)
            module.register_parameter(last, torch.nn.Parameter(tensor))


def trajectory(options, dtype):
    # Matrices of one row, as biases have no decay.
    model = Named({name: torch.tensor([start(name)] if name == "a.weight" else start(name), dtype=dtype) for name in SIZES})
    optimiser, _ = weaver.train.init_opt(arguments(), model, **dict(options))
    steps = []
    for step in range(STEPS):
        for name, tensor in model.named_parameters():
            tensor.grad = torch.tensor(gradient(name, step), dtype=torch.float32).to(dtype).reshape(tensor.shape)
        optimiser.step()
        steps.append({name: tensor.flatten().tolist() for name, tensor in model.named_parameters()})
    return steps


def both(options):
    with Double():
        double = trajectory(options, torch.float64)
    return {"f32": trajectory(options, torch.float32), "f64": double}


# `options` are ours; the second is weaver's.
RANGERS = [
    ({"kind": "ranger"}, {}, False),
    ({"kind": "ranger", "weight_decay": 0.3}, {"weight_decay": 0.3, "lr_mult": ("head.*", 50)}, True),
    ({"kind": "ranger", "beta_1": 0.9, "beta_2": 0.98, "epsilon": 1e-8, "sync_every": 4, "fast_share": 0.8},
     {"betas": (0.9, 0.98), "eps": 1e-8, "k": 4, "alpha": 0.8}, False),
]


def step_sizes():
    """The factor on the learning rate at steps 1 to 9."""
    model = Named({"a": torch.zeros(1)})
    optimiser, _ = weaver.train.init_opt(arguments(), model)
    sizes = []
    for step in range(1, 10):
        model.a.grad = torch.ones(1)
        optimiser.step()
        [found] = [row[2] for row in optimiser.optimizer.param_groups[0]["buffer"] if row[0] == step]
        sizes.append(found)
    return sizes


# A network that is fitted.

ROWS, FEATURES, HIDDEN, CLASSES = 16, 3, 6, 2
INPUTS = [[math.sin(0.9 * row + 1.7 * column + 0.3 * row * column) for column in range(FEATURES)] for row in range(ROWS)]
LABELS = [row * 7 % 5 % 2 for row in range(ROWS)]


class Network(torch.nn.Module):
    def __init__(self, dtype):
        super().__init__()
        self.body = torch.nn.Linear(FEATURES, HIDDEN, dtype=dtype)
        self.head = torch.nn.Linear(HIDDEN, CLASSES, dtype=dtype)
        for name, tensor in self.named_parameters():
            values = [0.5 * math.sin(len(name) + 2.1 * i) for i in range(tensor.numel())]
            tensor.data = torch.tensor(values, dtype=torch.float32).to(dtype).reshape(tensor.shape)

    def forward(self, x):
        return self.head(torch.tanh(self.body(x)))


def weights(model):
    """A matrix as [inputs, outputs]."""
    return {name: (tensor.t() if tensor.dim() == 2 else tensor).flatten().tolist() for name, tensor in model.named_parameters()}


def fit(dtype):
    model = Network(dtype)
    optimiser, _ = weaver.train.init_opt(arguments(start_lr=0.004), model, weight_decay=0.01, lr_mult=("head.*", 50))
    x, y = torch.tensor(INPUTS, dtype=torch.float32).to(dtype), torch.tensor(LABELS)
    found = {"start": weights(model), "losses": [], "weights": []}
    for _ in range(STEPS):
        optimiser.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimiser.step()
        found["losses"].append(loss.item())
        found["weights"].append(weights(model))
    return found


def fits():
    with Double():
        double = fit(torch.float64)
    return {"inputs": torch.tensor(INPUTS, dtype=torch.float32).tolist(), "labels": LABELS, "rate": 0.004,
            "multipliers": {"body": 1.0, "head": 50.0}, "weight_decay": 0.01, "f32": fit(torch.float32), "f64": double}


# Schedule.


def flat_decay(epochs, multiplier):
    model = Named({"a.weight": torch.zeros(2, 2), "head.weight": torch.zeros(2, 2)})
    options = {} if multiplier is None else {"lr_mult": ("head.*", multiplier)}
    made = weaver.train.init_opt(arguments(lr_scheduler="flat+decay", num_epochs=epochs, start_lr=1.0), model, **options)
    optimiser, scheduler = made
    rates = {"a.weight": [], "head.weight": []}
    for _ in range(epochs):
        for name, tensor in model.named_parameters():
            [group] = [group for group in optimiser.param_groups if any(p is tensor for p in group["params"])]
            rates[name].append(group["lr"])
        for tensor in model.parameters():
            tensor.grad = torch.zeros_like(tensor)
        optimiser.step()
        scheduler.step()
    return {"epochs": epochs, "multiplier": multiplier, "rates": rates}


# Which parameters lose weight.

SHAPES = {
    "embed.weight": [4, 3], "embed.bias": [4], "norm.weight": [4], "norm.bias": [4], "conv.weight": [4, 4, 1], "conv.bias": [4],
    "scale": [4], "cls_token": [1, 1, 4], "block.cls_token": [1, 4], "pos_embed": [5, 4], "mask_token": [1, 4],
    "odd.bias": [2, 2], "attention.in_proj_weight": [12, 4], "attention.in_proj_bias": [12], "head.0.weight": [2, 4],
}


def decayed():
    model = Named({name: torch.zeros(shape) for name, shape in SHAPES.items()})
    optimiser, _ = weaver.train.init_opt(arguments(), model, weight_decay=0.01)
    groups = [(group["weight_decay"], {id(p) for p in group["params"]}) for group in optimiser.param_groups]
    found = []
    for name, tensor in model.named_parameters():
        [decay] = [decay for decay, ids in groups if id(tensor) in ids]
        found.append({"name": name, "shape": SHAPES[name], "decays": decay > 0})
    return found


result = {
    "weaver": importlib.metadata.version("weaver-core"),
    "torch": torch.__version__.split("+")[0],
    "rate": RATE,
    "start": {name: start(name) for name in SIZES},
    "gradients": [{name: torch.tensor(gradient(name, step), dtype=torch.float32).tolist() for name in SIZES}
                  for step in range(STEPS)],
    "rangers": [{"options": ours, "head_multiplier": 50.0 if multiplied else 1.0, **both(theirs)}
                for ours, theirs, multiplied in RANGERS],
    "step_sizes": step_sizes(),
    "fit": fits(),
    "flat_decay": [flat_decay(epochs, multiplier) for epochs in (1, 2, 5, 20, 50) for multiplier in (None, 50)],
    "decayed": decayed(),
}
path = pathlib.Path(__file__).with_name("expected.json")
path.write_text(json.dumps(result, separators=(",", ":")).replace('},{', '},\n{') + "\n")
