"""How far does each head look, and who misses its choice? (chapter 13).

    python notebooks/experiments/13_heads.py --data DIR

DIR holds CIFAR-10, as `python -m vitlib.downloads cifar10 DIR` fetches it; the clothes
ship. Both models that ship, and models with random weights beside them; three seeds,
each with test images and random weights of its own. Writes 13_heads.csv beside this
file, in about three minutes of one core. `kept` is the share of answers that stay when
a head attends to all tokens equally, whatever they hold; head "all" stands for all
heads of a block at once. `kept_without` is the share that stays when the block's
attention adds nothing at all.
"""

import argparse
import csv
import itertools
import platform
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from vitlib import ViT
from vitlib.augment import normalise
from vitlib.checkpoints import load_pretrained
from vitlib.data import cifar10, fashion_mnist
from vitlib.interpret import mean_attention_distance, record_attention

MODELS = ("cifar10_vit", "fashion_mnist_vit")
IMAGES = 200
SEEDS = 3


def draw(images: Tensor, seed: int) -> Tensor:
    """Take a seed's own images, which no other seed has, and normalise them."""
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    return normalise(images[order[seed * IMAGES : (seed + 1) * IMAGES]])


@torch.inference_mode()
def answers(model: ViT, images: Tensor) -> Tensor:
    """Return the class that the model names for each image, (b)."""
    return torch.cat([model(some).argmax(dim=1) for some in images.split(100)])


def kept_without_choice(model: ViT, images: Tensor, block: int, heads: slice) -> float:
    """Let some heads attend to all tokens equally; how many answers stay?"""
    num_heads = model.config.num_heads

    def flatten(layer: nn.Linear, inputs: tuple[Tensor], qkv: Tensor) -> Tensor:
        q, k, v = qkv.unflatten(-1, (3, num_heads, -1)).unbind(dim=2)  # (b, T, h, d)
        q = q.clone()
        q[:, :, heads] = 0  # all scores equal, so all weights are
        return torch.stack([q, k, v], dim=2).flatten(2)

    return kept(model, images, model.blocks[block].attn.qkv, flatten)


def kept_without_attention(model: ViT, images: Tensor, block: int) -> float:
    """Let a block's attention add nothing; how many answers stay?"""

    def silence(layer: nn.Linear, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        return torch.zeros_like(output)

    return kept(model, images, model.blocks[block].attn.proj, silence)


def kept(model: ViT, images: Tensor, layer: nn.Linear, change: Callable) -> float:
    """Replace what a layer returns; return the share of answers that stay."""
    whole = answers(model, images)
    hook = layer.register_forward_hook(change)
    try:
        now = answers(model, images)
    finally:
        hook.remove()
    return (now == whole).float().mean().item()


def distances(model: ViT, images: Tensor) -> Tensor:
    """Measure how far each head looks, in pixels, (depth, h)."""
    config = model.config
    attention = record_attention(model, images)
    return mean_attention_distance(attention, config.grid_size, config.patch_size)


def main() -> None:
    """Measure every head and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="the folder with CIFAR-10")
    folder = parser.parse_args().data
    torch.set_num_threads(1)
    machine = f"{platform.machine()}, 1 thread, torch {torch.__version__.split('+')[0]}"
    data = {
        "cifar10_vit": cifar10(folder, "test")[0],
        "fashion_mnist_vit": fashion_mnist("test")[0],
    }
    with Path(__file__).with_suffix(".csv").open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        columns = ["model", "weights", "block", "head", "seed"]
        columns += ["distance", "kept", "kept_without", "machine"]
        table.writerow(columns)
        for name, seed in itertools.product(MODELS, range(SEEDS)):
            images = draw(data[name], seed)
            trained = load_pretrained(name)
            torch.manual_seed(seed)
            models = {"trained": trained, "random": ViT(trained.config).eval()}
            for weights, model in models.items():
                far = distances(model, images)  # (depth, h)
                for block, head in itertools.product(*map(range, far.shape)):
                    even = ""
                    if weights == "trained":
                        chosen = slice(head, head + 1)
                        even = kept_without_choice(model, images, block, chosen)
                        even = f"{even:.4f}"
                    row = [name, weights, block + 1, head + 1, seed]
                    table.writerow([*row, f"{far[block, head]:.4f}", even, "", machine])
            for block in range(trained.config.depth):
                even = kept_without_choice(trained, images, block, slice(None))
                without = kept_without_attention(trained, images, block)
                row = [name, "trained", block + 1, "all", seed, ""]
                table.writerow([*row, f"{even:.4f}", f"{without:.4f}", machine])
            file.flush()


if __name__ == "__main__":
    main()
