"""Fetching one or two symbols with one, two or four heads (chapter 05).

Five seeds each, equal parameters. Writes 05_multi_head.csv beside this file, in about
two minutes of one core.
"""

import csv
import itertools
import platform
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitlib import MultiHeadAttention


class Fetch(nn.Module):
    """Look up the symbols at k places with one attention layer."""

    def __init__(self, num_heads: int, k: int, embed_dim: int = 32):
        super().__init__()
        self.symbol = nn.Embedding(8, embed_dim)
        self.place = nn.Embedding(8, embed_dim)
        self.ask = nn.Parameter(torch.randn(k, 8, embed_dim))
        self.attn = MultiHeadAttention(embed_dim, num_heads)
        self.head = nn.Linear(embed_dim, k * 8)

    def forward(self, symbols: Tensor, places: Tensor) -> Tensor:
        """Score the symbols, (b, 8) and (b, k) -> (b, k, 8)."""
        tokens = self.symbol(symbols) + self.place.weight  # (b, n, e)
        query = sum(ask[places[:, i]] for i, ask in enumerate(self.ask))[:, None]
        read = self.attn(torch.cat([query, tokens], dim=1))[:, 0]  # (b, e)
        return self.head(read).view(len(places), -1, 8)


def draw(count: int, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """Draw symbols (b, 8), places (b, k) and the symbols there (b, k)."""
    symbols = torch.randint(8, (count, 8))
    places = torch.rand(count, 8).argsort(dim=1)[:, :k]
    return symbols, places, symbols.gather(1, places)


def train(num_heads: int, k: int) -> float:
    """Train one model and return its share of correct symbols."""
    model = Fetch(num_heads, k)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(600):
        symbols, places, answers = draw(256, k)
        scores = model(symbols, places)
        loss = F.cross_entropy(scores.flatten(0, 1), answers.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    symbols, places, answers = draw(2000, k)
    return (model(symbols, places).argmax(-1) == answers).float().mean().item()


def main() -> None:
    """Train every combination with every seed and write the accuracies."""
    torch.set_num_threads(1)
    machine = f"{platform.machine()}, 1 thread, torch {torch.__version__.split('+')[0]}"
    path = Path(__file__).with_suffix(".csv")
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["places", "heads", "seed", "accuracy", "machine"])
        for k, heads, seed in itertools.product((1, 2), (1, 2, 4), range(5)):
            torch.manual_seed(seed)
            writer.writerow([k, heads, seed, f"{train(heads, k):.4f}", machine])
            file.flush()


if __name__ == "__main__":
    main()
