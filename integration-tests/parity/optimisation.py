"""Twenty steps of Dinomaly's StableAdamW under its schedule and torch's clipping of gradients, in f64:
in f32 torch's own norm of a million values is off by 5e-6."""

import torch
from torch import nn

import peers

STEPS = 20
SETTINGS = {
    "reconstruction": dict(beta1=0.9, beta2=0.999, weight_decay=1e-4, epsilon=1e-10, amsgrad=True, step_limit=1.0, gradient_norm=0.1),
    "pretraining": dict(beta1=0.9, beta2=0.98, weight_decay=0.05, epsilon=1e-8, amsgrad=False, step_limit=1.0, gradient_norm=1.0),
}


def gradients(shapes, step, random):
    """Long and short ones in turn, so that the clipping, the shortened step and AMSGrad's maximum all
    have their say. The lengths are about the global norm."""
    length = [3.0, 0.5, 0.05, 0.3][step % 4]
    count = sum(torch.Size(shape).numel() for shape in shapes)
    return [length / count**0.5 * torch.randn(shape, generator=random) for shape in shapes]


def add(cases, name, shapes):
    for key, settings in SETTINGS.items():
        random = torch.Generator().manual_seed(11)
        # As small as first values are: what a step does is then no small part of what is compared.
        start = [0.01 * torch.randn(shape, generator=random) for shape in shapes]
        parameters = [nn.Parameter(tensor.double()) for tensor in start]
        optimizer = peers.dinomaly("optimizers").StableAdamW(
            parameters,
            lr=2e-3,
            betas=(settings["beta1"], settings["beta2"]),
            eps=settings["epsilon"],
            weight_decay=settings["weight_decay"],
            amsgrad=settings["amsgrad"],
            clip_threshold=settings["step_limit"],
        )
        schedule = dict(peak=2e-3, last=2e-4, warm_up=5, iterations=STEPS)
        scheduler = peers.dinomaly("utils").WarmCosineScheduler(
            optimizer, base_value=2e-3, final_value=2e-4, total_iters=STEPS, warmup_iters=5
        )
        given, after, rates, norms = [], [], [], []
        for step in range(STEPS):
            given.append(gradients(shapes, step, random))
            for parameter, gradient in zip(parameters, given[-1]):
                parameter.grad = gradient.double()
            norms.append(nn.utils.clip_grad_norm_(parameters, settings["gradient_norm"]))
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
            after.append([parameter.detach().float() for parameter in parameters])
        tensors = {"rates": torch.tensor(rates, dtype=torch.float64), "norms": torch.stack(norms).float()}
        for index in range(len(shapes)):
            tensors[f"start.{index}"] = start[index]
            tensors[f"gradients.{index}"] = torch.stack([step[index] for step in given])
            tensors[f"after.{index}"] = torch.stack([step[index] for step in after])
        cases.add(
            "optimiser",
            f"{name}_optimiser_{key}",
            f"StableAdamW, {STEPS} steps{' with AMSGrad' if settings['amsgrad'] else ''}, clipping, schedule ({name})",
            ["dinomaly", "torch"],
            tensors,
            bound=1e-5,
            settings=settings,
            schedule=schedule,
        )


def add_small(cases):
    add(cases, "tiny", [(5, 7), (4,), (2, 3, 4)])


def add_full(cases):
    add(cases, "small", [(1536, 384), (384,), (1, 785, 384)])
