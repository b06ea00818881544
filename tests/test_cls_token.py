"""The class token goes in front; pooling reads it or averages."""

import re

import pytest
import torch

from vitlib.cls_token import pool_tokens, prepend_cls_token


def test_every_image_gets_the_same_token_in_front():
    tokens, token = torch.randn(2, 5, 3), torch.randn(1, 1, 3)
    joined = prepend_cls_token(tokens, token)
    assert joined.shape == (2, 6, 3)
    for image in range(2):
        assert torch.equal(joined[image, 0], token[0, 0])
        assert torch.equal(joined[image, 1:], tokens[image])


def test_the_token_learns_from_every_image():
    tokens, token = torch.randn(2, 5, 3), torch.randn(1, 1, 3, requires_grad=True)
    target = torch.randn(2, 6, 3)
    (prepend_cls_token(tokens, token) * target).sum().backward()
    torch.testing.assert_close(token.grad[0, 0], target[0, 0] + target[1, 0])


@pytest.mark.parametrize(
    ("pool", "class_token", "chosen"),
    [
        ("cls", True, [0]),
        ("mean", True, [1, 2, 3, 4]),
        ("mean", False, [0, 1, 2, 3, 4]),
        ("mean_all", True, [0, 1, 2, 3, 4]),
        ("mean_all", False, [0, 1, 2, 3, 4]),
    ],
)
def test_pools_against_sums_by_hand(pool, class_token, chosen):
    tokens = torch.randn(2, 5, 3)
    expected = sum(tokens[:, i] for i in chosen) / len(chosen)
    pooled = pool_tokens(tokens, pool, class_token=class_token)
    torch.testing.assert_close(pooled, expected)


def test_a_class_token_is_the_rule():
    tokens = torch.randn(2, 5, 3)
    assert torch.equal(
        pool_tokens(tokens, "mean"), pool_tokens(tokens, "mean", class_token=True)
    )


def test_one_token_is_enough_where_it_is_read():
    token = torch.randn(2, 1, 3)
    assert torch.equal(pool_tokens(token, "cls"), token[:, 0])
    assert torch.equal(pool_tokens(token, "mean_all"), token[:, 0])
    assert torch.equal(pool_tokens(token, "mean", class_token=False), token[:, 0])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: prepend_cls_token(torch.ones(2, 5), torch.ones(1, 1, 5)),
            ValueError,
            "tokens has shape (2, 5): give 3 axes, (b, n, e)",
        ),
        (
            lambda: prepend_cls_token(None, torch.ones(1, 1, 5)),
            TypeError,
            "tokens is a NoneType: give a torch.Tensor",
        ),
        (
            lambda: prepend_cls_token(torch.ones(2, 5, 3), torch.ones(3)),
            ValueError,
            "cls_token has shape (3,): give 3 axes, (1, 1, e)",
        ),
        (
            lambda: prepend_cls_token(torch.ones(2, 5, 3), [1.0]),
            TypeError,
            "cls_token is a list: give a torch.Tensor",
        ),
        (
            lambda: prepend_cls_token(torch.ones(2, 5, 3), torch.ones(2, 1, 3)),
            ValueError,
            "cls_token has shape (2, 1, 3): give (1, 1, 3), one vector for all "
            "images, as long as a token",
        ),
        (
            lambda: prepend_cls_token(torch.ones(2, 5, 3), torch.ones(1, 1, 5)),
            ValueError,
            "cls_token has shape (1, 1, 5): give (1, 1, 3), one vector for all "
            "images, as long as a token",
        ),
        (
            lambda: pool_tokens(torch.ones(2, 5, 3), "max"),
            ValueError,
            "pool is 'max': give one of 'cls', 'mean', 'mean_all'",
        ),
        (
            lambda: pool_tokens(torch.ones(2, 5, 3), "cls", class_token=False),
            ValueError,
            'pool "cls" reads the class token, but class_token is False: '
            'give pool "mean", or keep the class token',
        ),
        (
            lambda: pool_tokens(torch.ones(2, 5, 3), "mean", class_token="no"),
            ValueError,
            "class_token is 'no': give one of False, True",
        ),
        (
            lambda: pool_tokens(torch.ones(2, 1, 3), "mean"),
            ValueError,
            "tokens has shape (2, 1, 3): pool 'mean' needs at least 2 tokens for each "
            "image",
        ),
        (
            lambda: pool_tokens(torch.ones(2, 0, 3), "mean_all"),
            ValueError,
            "tokens has shape (2, 0, 3): pool 'mean_all' needs at least 1 tokens for "
            "each image",
        ),
        (
            lambda: pool_tokens(torch.ones(2, 3), "cls"),
            ValueError,
            "tokens has shape (2, 3): give 3 axes, (b, T, e)",
        ),
        (
            lambda: pool_tokens(3.0, "cls"),
            TypeError,
            "tokens is a float: give a torch.Tensor",
        ),
        (
            lambda: pool_tokens(torch.ones(2, 5, 3).long(), "mean"),
            ValueError,
            "tokens is torch.int64: give floats, for pixels tokens.float() / 255",
        ),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        call()
