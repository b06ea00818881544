"""What public ViT bugs cost in accuracy (chapter 15).

    python notebooks/experiments/15_bug_museum.py

`Exhibit` is vitlib's ViT cut into steps, and a bug of `BUGS` replaces one or two of
them; the ideas are those of public threads and of tutorials, the code is ours. A small
ViT with each bug, and one without, learns the relation task and a part of
Fashion-MNIST, five seeds each. About half an hour of one core; every line of
15_bug_museum.csv is written as soon as it is known, and a second run goes on there.
"""

import csv
import itertools
import platform
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from vitlib import ViT, ViTConfig, attention_weights, merge_heads, prepend_cls_token
from vitlib.cls_token import pool_tokens
from vitlib.data import fashion_mnist, relation_task
from vitlib.files import replace_whole
from vitlib.train import fit

SIZES = dict(in_channels=1, embed_dim=48, depth=2, num_heads=4, mlp_ratio=2)
BATCH = 128
SEEDS = range(5)
TABLE = Path(__file__).with_suffix(".csv")
MACHINE = f"{platform.machine()}, 1 thread, torch {torch.__version__.split('+')[0]}"


class Exhibit(ViT):
    """vitlib's ViT, cut into steps that a bug can replace."""

    def __init__(self, config: ViTConfig):
        super().__init__(config)
        # A table that starts quietly is not learned by every seed (chapter 03).
        nn.init.normal_(self.pos_embed, std=0.5)
        self.build()

    def build(self) -> None:
        """Change what is there before the first image comes."""

    def forward(self, images: Tensor) -> Tensor:
        """Score every class for every image."""
        return self.score(self.encode(self.enter(self.embed(images))))

    def embed(self, images: Tensor) -> Tensor:
        """Make a token of every patch, (b, c, H, W) -> (b, n, e)."""
        return self.patch_embed(images)

    def enter(self, tokens: Tensor) -> Tensor:
        """Add the class token and the positions, (b, n, e) -> (b, T, e)."""
        return prepend_cls_token(tokens, self.cls_token) + self.pos_embed

    def encode(self, tokens: Tensor) -> Tensor:
        """Run all blocks."""
        for block in self.blocks:
            tokens = self.run_block(block, tokens)
        return tokens

    def run_block(self, block: nn.Module, tokens: Tensor) -> Tensor:
        """Add what attention and MLP say to the tokens."""
        tokens = tokens + self.attend(block.attn, self.norm_of(block.norm1, tokens))
        return tokens + self.mlp_of(block.mlp, self.norm_of(block.norm2, tokens))

    def norm_of(self, norm: nn.LayerNorm, tokens: Tensor) -> Tensor:
        """Normalise every token for itself."""
        return norm(tokens)

    def attend(self, attn: nn.Module, tokens: Tensor) -> Tensor:
        """Let the tokens gather from each other."""
        q, k, v = rearrange(
            attn.qkv(tokens),
            "b t (three h d) -> three b h t d",
            three=3,
            h=attn.num_heads,
        )
        return attn.proj(self.merge(self.weights(q, k) @ v))

    def weights(self, q: Tensor, k: Tensor) -> Tensor:
        """Say how much queries listen to keys, -> (b, h, i, j)."""
        return attention_weights(q, k)

    def merge(self, heads: Tensor) -> Tensor:
        """Lay the heads end to end, (b, h, T, d) -> (b, T, h*d)."""
        return merge_heads(heads)

    def mlp_of(self, mlp: nn.Module, tokens: Tensor) -> Tensor:
        """Two maps with a bend between them."""
        return mlp.fc2(self.bend(mlp.fc1(tokens)))

    def bend(self, hidden: Tensor) -> Tensor:
        """Apply the activation."""
        return F.gelu(hidden)

    def score(self, tokens: Tensor) -> Tensor:
        """Pool, normalise, and score the classes, (b, T, e) -> (b, classes)."""
        pooled = pool_tokens(tokens, self.config.pool)
        return self.head(self.norm_of(self.norm, pooled))


# The bugs. Each function takes the place of one step.


def torn_patches(model, images):
    """Cut the pixels in the order in which they lie in memory."""
    conv = model.patch_embed.proj
    patches = images.reshape(len(images), model.config.num_patches, -1)
    return F.linear(patches, conv.weight.flatten(1), conv.bias)


def columns_first(model, images):
    """Number the patches down the columns."""
    grid = model.patch_embed.proj(images)  # (b, e, rows, cols)
    return rearrange(grid, "b e rows cols -> b (cols rows) e")


def no_positions(model, tokens):
    """Forget to add them."""
    return prepend_cls_token(tokens, model.cls_token)


def table_for_a_batch(model):
    """Make a row for every image of a batch, not for every token."""
    model.pos_embed = nn.Parameter(torch.randn(BATCH, 1, model.config.embed_dim))


def same_vector_everywhere(model, tokens):
    """Add an image's one vector to all of its tokens."""
    tokens = prepend_cls_token(tokens, model.cls_token)
    return tokens + model.pos_embed[: len(tokens)]


def class_token_unplaced(model, tokens):
    """Add positions first, the class token afterwards."""
    return prepend_cls_token(tokens + model.pos_embed[:, 1:], model.cls_token)


def divided_late(model, q, k):
    """Divide the weights, not the scores."""
    return (q @ k.mT).softmax(dim=-1) / model.config.embed_dim**0.5


def root_of_e(model, q, k):
    """Divide by the root of the whole token's length."""
    return (q @ k.mT / model.config.embed_dim**0.5).softmax(dim=-1)


def softmax_over_queries(model, q, k):
    """Normalise the columns of the scores, not the rows."""
    return (q @ k.mT / q.shape[-1] ** 0.5).softmax(dim=-2)


def heads_torn(model, heads):
    """Reshape without moving the heads beside the vectors first."""
    b, h, t, d = heads.shape
    return heads.reshape(b, t, h * d)


def batch_for_sequence(model, tokens):
    """Hand the batch over where the layers expect the sequence."""
    return Exhibit.encode(model, tokens.transpose(0, 1)).transpose(0, 1)


def norm_over_the_image(model, norm, tokens):
    """Take mean and variance over all tokens of an image."""
    normed = F.layer_norm(tokens, tokens.shape[1:], eps=norm.eps)
    return normed * norm.weight + norm.bias


def eps_as_it_comes(model, norm, tokens):
    """Keep PyTorch's eps."""
    return F.layer_norm(tokens, norm.normalized_shape, norm.weight, norm.bias, 1e-5)


def residual_of_the_norm(model, block, tokens):
    """Keep the normalised tokens as the stream, and add to it once."""
    tokens = block.norm1(tokens)
    gathered = tokens + model.attend(block.attn, tokens)
    return tokens + model.mlp_of(block.mlp, block.norm2(gathered))


def exponential_unit(model, hidden):
    """Take the ELU, another function with almost the same name."""
    return F.elu(hidden)


def reads_token_1(model, tokens):
    """Count the class token as token 1."""
    return model.head(model.norm(tokens[:, 1]))


def mean_with_class_token(model, tokens):
    """Average the patches, and the class token with them."""
    return model.head(model.norm(tokens.mean(dim=1)))


def blocks_in_a_list(model):
    """Keep the blocks where PyTorch does not look for them."""
    blocks = list(model.blocks)
    del model.blocks
    model.blocks = blocks


def decay_in_the_gradient(model):
    """Do to gradients what Adam(weight_decay=0.3) does to them."""
    for p in model.parameters():
        p.register_hook(lambda gradient, p=p: gradient + 0.3 * p.detach())


# Which steps each of them replaces.
BUGS = {
    "torn patches": {"embed": torn_patches},
    "columns first": {"embed": columns_first},
    "no positions": {"enter": no_positions},
    "one position": {"build": table_for_a_batch, "enter": same_vector_everywhere},
    "class token unplaced": {"enter": class_token_unplaced},
    "divided late": {"weights": divided_late},
    "root of e": {"weights": root_of_e},
    "softmax over queries": {"weights": softmax_over_queries},
    "heads torn": {"merge": heads_torn},
    "batch for sequence": {"encode": batch_for_sequence},
    "norm over the image": {"norm_of": norm_over_the_image},
    "eps as it comes": {"norm_of": eps_as_it_comes},
    "residual of the norm": {"run_block": residual_of_the_norm},
    "ELU for GELU": {"bend": exponential_unit},
    "reads token 1": {"score": reads_token_1},
    "mean with class token": {"score": mean_with_class_token},
    "blocks in a list": {"build": blocks_in_a_list},
    "decay in the gradient": {"build": decay_in_the_gradient},
}
# The correct models and their pools, and the bugs that belong to the second.
CORRECT = {"none": "cls", "none, mean pool": "mean"}
MEAN_POOL = {"none, mean pool", "batch for sequence", "mean with class token"}


def reference(bug: str) -> str:
    """Name the correct model that a bug is compared with."""
    return "none, mean pool" if bug in MEAN_POOL else "none"


def exhibit(bug: str, **sizes: object) -> Exhibit:
    """Build a model with a bug, or a correct one."""
    config = ViTConfig(**sizes, pool=CORRECT[reference(bug)])
    return type("Exhibit", (Exhibit,), BUGS.get(bug, {}))(config)


def load(task: str) -> tuple:
    """Return what to learn from, what to be tested on, the sizes and the steps."""
    if task == "relation":
        sizes = dict(image_size=32, patch_size=8, num_classes=4)
        train, test = relation_task(8000, seed=0), relation_task(2000, seed=1)
        return train, test, sizes, 300
    sizes = dict(image_size=28, patch_size=7, num_classes=10)
    return fashion_mnist("train"), fashion_mnist("test"), sizes, 400


def learn(task: str, bug: str, seed: int) -> float:
    """Train one model, and return its accuracy on the test images."""
    train, (images, labels), sizes, steps = load(task)
    torch.manual_seed(seed)
    model = exhibit(bug, **SIZES, **sizes)
    fit(model, *train, steps=steps, batch_size=BATCH, lr=3e-3, seed=seed)
    with torch.no_grad():
        scores = torch.cat([model(batch) for batch in images.split(BATCH)])
    return (scores.argmax(dim=1) == labels).float().mean().item()


def main() -> None:
    """Fill the table."""
    torch.set_num_threads(1)
    rows = []
    if TABLE.exists():
        with TABLE.open(newline="") as file:
            rows = list(csv.DictReader(file))
    done = {(int(row["seed"]), row["task"], row["bug"]) for row in rows}
    # Seed by seed: what is there early has all bugs in it.
    for job in itertools.product(SEEDS, ("relation", "clothes"), (*CORRECT, *BUGS)):
        if job in done:
            continue
        seed, task, bug = job
        row = {"task": task, "bug": bug, "seed": seed}
        row["accuracy"] = f"{learn(task, bug, seed):.4f}"
        rows.append(row | {"machine": MACHINE})
        print(task, bug, seed, row["accuracy"], flush=True)
        with replace_whole(TABLE) as partial, partial.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[-1]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
