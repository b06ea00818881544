"""The class token: one learned vector that joins the patches, and pooling."""

import torch
from torch import Tensor

from vitlib.arguments import require_choice, require_float, require_tensor

POOLS = ("cls", "mean", "mean_all")


def prepend_cls_token(tokens: Tensor, cls_token: Tensor) -> Tensor:
    """Put the same learned vector in front of every image's tokens.

    Args:
        tokens: Patch embeddings.
        cls_token: The vector, as the model stores it.
    Shape:
        tokens (b, n, e), cls_token (1, 1, e) -> (b, 1 + n, e)
    Raises:
        ValueError: the vector is not (1, 1, e) with the tokens' e.
    Reference:
        Dosovitskiy et al. 2021, Eq. 1; Devlin et al. 2019. Chapter 02.
    """
    require_tensor("tokens", tokens, "b n e")
    require_tensor("cls_token", cls_token, "1 1 e")
    expected = (1, 1, tokens.shape[2])
    if tuple(cls_token.shape) != expected:
        raise ValueError(
            f"cls_token has shape {tuple(cls_token.shape)}: give {expected}, one "
            "vector for all images, as long as a token"
        )
    return torch.cat([cls_token.expand(tokens.shape[0], -1, -1), tokens], dim=1)


def pool_tokens(tokens: Tensor, pool: str, *, class_token: bool = True) -> Tensor:
    """Reduce a row of tokens to one vector for each image.

    Args:
        tokens: What leaves the last block; token 0 is the class token if there
            is one.
        pool: "cls" reads the class token, "mean" averages the patch tokens,
            "mean_all" averages every token.
        class_token: Whether token 0 is a class token.
    Shape:
        tokens (b, T, e) -> (b, e)
    Raises:
        ValueError: unknown pool, "cls" without a class token, or nothing left to
            average.
    Reference:
        Dosovitskiy et al. 2021, Eq. 4 and appendix D.3. Chapter 02.
    """
    require_tensor("tokens", tokens, "b T e")
    require_float("tokens", tokens)
    require_pool(pool, class_token)
    first = 1 if class_token and pool == "mean" else 0
    if tokens.shape[1] <= first:
        raise ValueError(
            f"tokens has shape {tuple(tokens.shape)}: pool {pool!r} needs at least "
            f"{first + 1} tokens for each image"
        )
    if pool == "cls":
        return tokens[:, 0]
    return tokens[:, first:].mean(dim=1)


def require_pool(pool: str, class_token: bool) -> None:
    """Refuse a pool that is unknown or reads a class token that is not there.

    Args:
        pool: One of "cls", "mean", "mean_all".
        class_token: Whether the model has a class token.
    Raises:
        ValueError: as said.
    """
    require_choice("pool", pool, POOLS)
    require_choice("class_token", class_token, (False, True))
    if pool == "cls" and not class_token:
        raise ValueError(
            'pool "cls" reads the class token, but class_token is False: '
            'give pool "mean", or keep the class token'
        )
