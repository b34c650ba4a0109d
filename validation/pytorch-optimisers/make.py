"""Trajectories of PyTorch's optimisers, schedules, clipping and cross-entropy, as numbers to compare with.

    python make.py            writes expected.json beside this file

Needs torch only. Nothing here is random: parameters and gradients are formulas.
"""

import json
import math
import pathlib

import torch
from torch.optim import lr_scheduler as schedulers

torch.set_num_threads(1)
STEPS = 12
SIZES = {"a.weight": 5, "b.bias": 3}
RATES = {"a.weight": 1.0, "b.bias": 0.25}
RATE = 0.05


def start(name):
    offset = len(name)
    return [math.sin(offset + 1.3 * i) for i in range(SIZES[name])]


def gradient(name, step):
    """Changing signs and sizes over six orders of magnitude; exact zeros in the first element of `b.bias`."""
    values = [math.sin(0.7 * step + 1.9 * i + len(name)) * 10.0 ** (i - 3) for i in range(SIZES[name])]
    if name == "b.bias":
        values[0] = 0.0
    return values


def trajectory(make, dtype):
    tensors = {name: torch.nn.Parameter(torch.tensor(start(name), dtype=dtype)) for name in SIZES}
    groups = [{"params": [tensor], "lr": RATE * RATES[name]} for name, tensor in tensors.items()]
    optimiser = make(groups)
    steps = []
    for step in range(STEPS):
        for name, tensor in tensors.items():
            # Gradients are the same f32 numbers in both precisions.
            tensor.grad = torch.tensor(gradient(name, step), dtype=torch.float32).to(dtype)
        optimiser.step()
        steps.append({name: tensor.tolist() for name, tensor in tensors.items()})
    return steps


OPTIMISERS = [
    ({"kind": "adam"}, lambda g: torch.optim.Adam(g, foreach=False)),
    ({"kind": "adam", "beta_1": 0.8, "beta_2": 0.95, "epsilon": 1e-6, "weight_decay": 0.1},
     lambda g: torch.optim.Adam(g, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.1, foreach=False)),
    ({"kind": "adam-w"}, lambda g: torch.optim.AdamW(g, foreach=False)),
    ({"kind": "adam-w", "weight_decay": 0.3}, lambda g: torch.optim.AdamW(g, weight_decay=0.3, foreach=False)),
    ({"kind": "sgd", "momentum": 0.0}, lambda g: torch.optim.SGD(g, lr=RATE, foreach=False)),
    ({"kind": "sgd"}, lambda g: torch.optim.SGD(g, lr=RATE, momentum=0.9, foreach=False)),
    ({"kind": "sgd", "momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
     lambda g: torch.optim.SGD(g, lr=RATE, momentum=0.9, nesterov=True, weight_decay=0.01, foreach=False)),
    ({"kind": "sgd", "momentum": 0.8, "dampening": 0.5},
     lambda g: torch.optim.SGD(g, lr=RATE, momentum=0.8, dampening=0.5, foreach=False)),
]

PER_EPOCH, EPOCHS = 4, 6
TOTAL = PER_EPOCH * EPOCHS


def factors(make, per_epoch=False):
    tensor = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    optimiser = torch.optim.SGD([tensor], lr=1.0)
    scheduler = make(optimiser)
    values = []
    for step in range(TOTAL):
        values.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        if not per_epoch or (step + 1) % PER_EPOCH == 0:
            scheduler.step()
    return values


def product(first, second):
    return [a * b for a, b in zip(first, second)]


def warm(optimiser, steps=5, start=1 / 3):
    return schedulers.LinearLR(optimiser, start_factor=start, total_iters=steps)


constant = factors(lambda o: schedulers.ConstantLR(o, factor=1.0))
multi = factors(lambda o: schedulers.MultiStepLR(o, [2, 4], gamma=0.1), per_epoch=True)
SCHEDULES = [
    ({"kind": "constant"}, constant),
    ({"kind": "constant", "warmup": {"steps": 5}}, factors(warm)),
    ({"kind": "multi-step", "milestones": [2, 4]}, multi),
    ({"kind": "multi-step", "milestones": [2, 4], "warmup": {"steps": 5, "start": 0.1}},
     product(multi, factors(lambda o: warm(o, start=0.1)))),
    ({"kind": "cosine"}, factors(lambda o: schedulers.CosineAnnealingLR(o, TOTAL))),
    ({"kind": "cosine", "per": "epoch", "last": 0.05},
     factors(lambda o: schedulers.CosineAnnealingLR(o, EPOCHS, eta_min=0.05), per_epoch=True)),
    ({"kind": "cosine", "last": 0.01, "warmup": {"steps": 5}},
     factors(lambda o: schedulers.SequentialLR(
         o, [warm(o), schedulers.CosineAnnealingLR(o, TOTAL - 5, eta_min=0.01)], milestones=[5]))),
    ({"kind": "one-cycle"}, factors(lambda o: schedulers.OneCycleLR(o, 1.0, total_steps=TOTAL, cycle_momentum=False))),
    ({"kind": "one-cycle", "warmup_share": 0.5, "initial_divisor": 10, "final_divisor": 100, "anneal": "linear"},
     factors(lambda o: schedulers.OneCycleLR(o, 1.0, total_steps=TOTAL, pct_start=0.5, div_factor=10,
                                             final_div_factor=100, anneal_strategy="linear", cycle_momentum=False))),
]


def clipped(limit):
    tensors = [torch.zeros(SIZES[name], requires_grad=True) for name in SIZES]
    for name, tensor in zip(SIZES, tensors):
        tensor.grad = torch.tensor(gradient(name, 3), dtype=torch.float32)
    norm = torch.nn.utils.clip_grad_norm_(tensors, limit, foreach=False)
    return {"limit": limit, "norm": norm.item(),
            "gradients": {name: tensor.grad.tolist() for name, tensor in zip(SIZES, tensors)}}


def cross_entropy(weights):
    logits = [[2.0, -1.0, 0.5], [80.0, -80.0, 0.0], [-3.0, 4.0, 4.0], [0.0, 0.0, 0.0]]
    labels = [0, 1, 2, 1]
    x = torch.tensor(logits, dtype=torch.float64, requires_grad=True)
    weight = None if weights is None else torch.tensor(weights, dtype=torch.float64)
    loss = torch.nn.functional.cross_entropy(x, torch.tensor(labels), weight=weight)
    loss.backward()
    return {"logits": logits, "labels": labels, "weights": weights, "loss": loss.item(), "gradient": x.grad.tolist()}


result = {
    "torch": torch.__version__.split("+")[0],
    "rate": RATE,
    "rates": RATES,
    "start": {name: start(name) for name in SIZES},
    "gradients": [{name: torch.tensor(gradient(name, step), dtype=torch.float32).tolist() for name in SIZES}
                  for step in range(STEPS)],
    "optimisers": [{"options": options, "f32": trajectory(make, torch.float32), "f64": trajectory(make, torch.float64)}
                   for options, make in OPTIMISERS],
    "steps_per_epoch": PER_EPOCH,
    "total_steps": TOTAL,
    "schedules": [{"options": options, "factors": values} for options, values in SCHEDULES],
    "clip": [clipped(100.0), clipped(0.01)],
    "cross_entropy": [cross_entropy(None), cross_entropy([0.5, 2.0, 1.0])],
}
path = pathlib.Path(__file__).with_name("expected.json")
path.write_text(json.dumps(result, separators=(",", ":")).replace('},{', '},\n{') + "\n")
