"""What a larger image costs, on both paths of attention (chapter 14).

One image at a time through the model that ships, at growing sizes. Every round runs
every variant once, so that what slows the machine slows all of them; the column `seed`
is the round. `user_ms` is CPU time spent in the pass, `system_ms` what the system spent
for it, most of it on handing out memory; `megabytes` is the most memory that was held
at once by tensors that the forward pass made. Writes 14_cost.csv beside this file, in
about five minutes of one core.
"""

import csv
import dataclasses
import platform
import resource
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.autograd.profiler import profile

from vitlib import ViT
from vitlib.checkpoints import load_pretrained

SIDES = (28, 56, 84, 112, 168, 224)
PATHS = {"einsum": False, "fused": True}
ROUNDS = 9


def milliseconds(model: nn.Module, images: Tensor) -> tuple[float, float]:
    """Return the CPU time of a forward pass: our own, and the system's for us.

    Each is the mean over about a tenth of a second.
    """
    start, passes, user, system = resource.getrusage(resource.RUSAGE_SELF), 0, 0.0, 0.0
    while user + system < 0.1:
        model(images)
        now = resource.getrusage(resource.RUSAGE_SELF)
        user, system = now.ru_utime - start.ru_utime, now.ru_stime - start.ru_stime
        passes += 1
    return 1000 * user / passes, 1000 * system / passes


def megabytes(model: nn.Module, images: Tensor) -> float:
    """Return the most memory that a forward pass holds at once."""
    with profile(profile_memory=True) as recorded:
        model(images)
    events = recorded.kineto_results.events()
    changes = [event for event in events if event.name() == "[memory]"]
    held = most = 0
    for change in sorted(changes, key=lambda event: event.start_ns()):
        held += change.nbytes()
        most = max(most, held)
    return most / 1e6


@torch.no_grad()
def main() -> None:
    """Measure every variant in every round."""
    torch.set_num_threads(1)
    machine = f"{platform.machine()}, 1 thread, torch {torch.__version__.split('+')[0]}"
    config = load_pretrained("fashion_mnist_vit").config
    models = {
        (side, path): ViT(
            dataclasses.replace(config, image_size=side, fused=fused)
        ).eval()
        for side in SIDES
        for path, fused in PATHS.items()
    }
    for (side, _), model in models.items():
        model(torch.rand(1, 1, side, side))  # the first pass of a shape is slower

    path = Path(__file__).with_suffix(".csv")
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(
            ["side", "path", "seed", "user_ms", "system_ms", "megabytes", "machine"]
        )
        for seed in range(ROUNDS):
            torch.manual_seed(seed)
            for (side, path), model in models.items():
                images = torch.rand(1, 1, side, side)
                spent = [f"{value:.3f}" for value in milliseconds(model, images)]
                held = f"{megabytes(model, images):.3f}"
                writer.writerow([side, path, seed, *spent, held, machine])
                file.flush()


if __name__ == "__main__":
    main()
