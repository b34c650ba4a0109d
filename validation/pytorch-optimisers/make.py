"""Trajectories of PyTorch's optimisers, schedules, clipping, losses and averaged weights, as numbers to compare with.

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


def trajectory(make, dtype, schedule=None):
    tensors = {name: torch.nn.Parameter(torch.tensor(start(name), dtype=dtype)) for name in SIZES}
    groups = [{"params": [tensor], "lr": RATE * RATES[name]} for name, tensor in tensors.items()]
    optimiser = make(groups)
    scheduler = schedule and schedule(optimiser)
    steps = []
    for step in range(STEPS):
        if scheduler and step and step % PER_EPOCH == 0:
            scheduler.step()
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
    ({"kind": "radam"}, lambda g: torch.optim.RAdam(g, foreach=False)),
    ({"kind": "radam", "weight_decay": 0.1}, lambda g: torch.optim.RAdam(g, weight_decay=0.1, foreach=False)),
    ({"kind": "radam", "beta_1": 0.8, "beta_2": 0.99, "epsilon": 1e-5, "weight_decay": 0.3, "decoupled": True},
     lambda g: torch.optim.RAdam(g, betas=(0.8, 0.99), eps=1e-5, weight_decay=0.3, decoupled_weight_decay=True,
                                 foreach=False)),
]

PER_EPOCH, EPOCHS = 4, 6
TOTAL = PER_EPOCH * EPOCHS


def factors(make, per_epoch=False, total=TOTAL, each=PER_EPOCH):
    tensor = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    optimiser = torch.optim.SGD([tensor], lr=1.0)
    scheduler = make(optimiser)
    values = []
    for step in range(total):
        values.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        if not per_epoch or (step + 1) % each == 0:
            scheduler.step()
    return values


def long(make, epochs):
    """One step an epoch, many epochs."""
    return {"steps_per_epoch": 1, "total_steps": epochs, "factors": factors(make, per_epoch=True, total=epochs, each=1)}


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


# Schedules of published trainings, epoch by epoch: the event networks (100 epochs, rate 0.01 to 0.0001), JetCLR's two
# alternatives (500 epochs).
LONG = [
    ({"kind": "cosine", "per": "epoch", "last": 0.01}, long(lambda o: schedulers.CosineAnnealingLR(o, 100, eta_min=0.01), 100)),
    ({"kind": "cosine", "per": "epoch", "period": 100, "last": 0.01},
     long(lambda o: schedulers.CosineAnnealingLR(o, 100, eta_min=0.01), 10)),
    ({"kind": "cosine-restarts", "first": 15, "growth": 2},
     long(lambda o: schedulers.CosineAnnealingWarmRestarts(o, 15, T_mult=2), 500)),
    ({"kind": "step", "every": 100, "factor": 0.6}, long(lambda o: schedulers.StepLR(o, 100, gamma=0.6), 500)),
]

SCHEDULES += [
    ({"kind": "cosine", "period": 30}, factors(lambda o: schedulers.CosineAnnealingLR(o, 30))),
    ({"kind": "cosine-restarts", "first": 2}, factors(lambda o: schedulers.CosineAnnealingWarmRestarts(o, 2), per_epoch=True)),
    ({"kind": "cosine-restarts", "first": 3, "growth": 2, "per": "step", "last": 0.1},
     factors(lambda o: schedulers.CosineAnnealingWarmRestarts(o, 3, T_mult=2, eta_min=0.1))),
    ({"kind": "cosine-restarts", "first": 4, "growth": 3, "per": "step", "warmup": {"steps": 5}},
     factors(lambda o: schedulers.SequentialLR(
         o, [warm(o), schedulers.CosineAnnealingWarmRestarts(o, 4, T_mult=3)], milestones=[5]))),
    ({"kind": "step", "every": 2}, factors(lambda o: schedulers.StepLR(o, 2, gamma=0.1), per_epoch=True)),
    ({"kind": "step", "every": 5, "factor": 0.6, "per": "step"}, factors(lambda o: schedulers.StepLR(o, 5, gamma=0.6))),
]


def scheduled():
    """The event networks' training: momentum, little decay, a cosine that moves after each epoch."""
    options = {"kind": "sgd", "momentum": 0.9, "weight_decay": 5e-5}
    make = lambda g: torch.optim.SGD(g, lr=RATE, momentum=0.9, weight_decay=5e-5, foreach=False)
    # PyTorch's floor is a rate, ours a factor: groups of other rates would have other floors.
    schedule = lambda o: schedulers.CosineAnnealingLR(o, STEPS // PER_EPOCH)
    return {"optimiser": options, "schedule": {"kind": "cosine", "per": "epoch"}, "steps_per_epoch": PER_EPOCH,
            "f32": trajectory(make, torch.float32, schedule), "f64": trajectory(make, torch.float64, schedule)}


def clipped(limit):
    tensors = [torch.zeros(SIZES[name], requires_grad=True) for name in SIZES]
    for name, tensor in zip(SIZES, tensors):
        tensor.grad = torch.tensor(gradient(name, 3), dtype=torch.float32)
    norm = torch.nn.utils.clip_grad_norm_(tensors, limit, foreach=False)
    return {"limit": limit, "norm": norm.item(),
            "gradients": {name: tensor.grad.tolist() for name, tensor in zip(SIZES, tensors)}}


LOGITS = [[2.0, -1.0, 0.5], [80.0, -80.0, 0.0], [-3.0, 4.0, 4.0], [0.0, 0.0, 0.0]]
LABELS = [0, 1, 2, 1]


def cross_entropy(weights, smoothing=0.0):
    x = torch.tensor(LOGITS, dtype=torch.float64, requires_grad=True)
    weight = None if weights is None else torch.tensor(weights, dtype=torch.float64)
    loss = torch.nn.functional.cross_entropy(x, torch.tensor(LABELS), weight=weight, label_smoothing=smoothing)
    loss.backward()
    return {"options": {"kind": "cross-entropy", "label_smoothing": smoothing}, "logits": LOGITS, "labels": LABELS,
            "weights": weights, "loss": loss.item(), "gradient": x.grad.tolist()}


def focal(gamma, alpha, weights, logits=LOGITS, labels=LABELS):
    """-alpha_y (1 - p_y)^gamma ln p_y (Lin et al., arXiv:1708.02002, eq. 5), mean over jets with their class weights.

    PyTorch has none of its own; p is built from its `softmax`.
    """
    x = torch.tensor(logits, dtype=torch.float64, requires_grad=True)
    y = torch.tensor(labels)
    classes = len(logits[0])
    weight = torch.ones(classes, dtype=torch.float64) if weights is None else torch.tensor(weights, dtype=torch.float64)
    each = [1.0] * classes if alpha is None else [1 - alpha, alpha] if isinstance(alpha, float) else alpha
    log_p = torch.log_softmax(x, 1).gather(1, y[:, None])[:, 0]
    rest = (torch.softmax(x, 1) * (1 - torch.nn.functional.one_hot(y, classes))).sum(1)
    terms = -torch.tensor(each, dtype=torch.float64)[y] * rest ** gamma * log_p
    loss = (weight[y] * terms).sum() / weight[y].sum()
    loss.backward()
    options = {"kind": "focal", "gamma": gamma}
    if alpha is not None:
        options["alpha"] = alpha
    return {"options": options, "logits": logits, "labels": labels, "weights": weights, "loss": loss.item(),
            "gradient": x.grad.tolist()}


TWO = [[2.0, -1.0], [-30.0, 30.0], [30.0, -30.0], [0.25, 0.5]]
LOSSES = [
    cross_entropy(None), cross_entropy([0.5, 2.0, 1.0]), cross_entropy(None, 0.1), cross_entropy([0.5, 2.0, 1.0], 0.3),
    focal(2.0, None, None), focal(0.0, None, [0.5, 2.0, 1.0]), focal(1.0, [0.25, 1.0, 2.0], None),
    focal(2.0, [0.25, 1.0, 2.0], [0.5, 2.0, 1.0]), focal(2.0, 0.25, None, TWO, [0, 1, 1, 0]),
    focal(0.5, 0.75, [1.0, 3.0], TWO, [1, 1, 1, 0]),
]


def averaged(decay, buffers):
    """`AveragedModel` behind a network whose weights and running mean take given values."""

    class Pair(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(5))
            self.register_buffer("running_mean", torch.zeros(3))

    network = Pair()
    # As before the first step; it leaves no trace.
    network.weight.data.fill_(7.0)
    average = torch.optim.swa_utils.AveragedModel(
        network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(decay), use_buffers=buffers)
    steps = []
    for step in range(STEPS):
        network.weight.data = torch.tensor(gradient("a.weight", step), dtype=torch.float32)
        network.running_mean.copy_(torch.tensor(gradient("b.bias", step), dtype=torch.float32))
        average.update_parameters(network)
        steps.append({"a.weight": average.module.weight.tolist(), "b.bias": average.module.running_mean.tolist()})
    return {"options": {"decay": decay, "running_statistics": "average" if buffers else "copy"}, "steps": steps}


result = {
    "torch": torch.__version__.split("+")[0],
    "rate": RATE,
    "rates": RATES,
    "start": {name: start(name) for name in SIZES},
    "gradients": [{name: torch.tensor(gradient(name, step), dtype=torch.float32).tolist() for name in SIZES}
                  for step in range(STEPS)],
    "optimisers": [{"options": options, "f32": trajectory(make, torch.float32), "f64": trajectory(make, torch.float64)}
                   for options, make in OPTIMISERS],
    "schedules": [{"options": options, "steps_per_epoch": PER_EPOCH, "total_steps": TOTAL, "factors": values}
                  for options, values in SCHEDULES] + [{"options": options, **values} for options, values in LONG],
    "scheduled": scheduled(),
    "clip": [clipped(100.0), clipped(0.01)],
    "losses": LOSSES,
    "averages": [averaged(0.9, False), averaged(0.75, True)],
}
path = pathlib.Path(__file__).with_name("expected.json")
path.write_text(json.dumps(result, separators=(",", ":")).replace('},{', '},\n{') + "\n")
