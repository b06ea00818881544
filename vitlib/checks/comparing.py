"""When two tensors count as equal."""

import torch
from torch import Tensor

# How far off a right answer may be, as a share: it may add in another order, or
# compute in another dtype. Whole numbers must be equal.
TOLERANCE = {
    torch.float64: 1e-5,
    torch.float32: 1e-5,
    torch.float16: 2e-2,
    torch.bfloat16: 5e-2,
}


def differing(got: Tensor, expected: Tensor) -> Tensor:
    """Say which numbers are wrong.

    Args:
        got: What was returned.
        expected: What should have been, of the same shape.
    Shape:
        got (...), expected (...) -> (...), boolean
    Reference:
        The book's page on the checkers.
    """
    share = TOLERANCE.get(expected.dtype, 0.0)
    got, expected = got.detach().double(), expected.detach().double()
    # Where all should be nearly 0, the rounding of larger numbers remains.
    sizes = expected.abs().nan_to_num(nan=0.0, posinf=0.0).flatten()
    scale = torch.cat([sizes, sizes.new_tensor([0.1])]).max().item()
    return ~torch.isclose(got, expected, rtol=share, atol=share * scale, equal_nan=True)


def close(got: Tensor, expected: Tensor) -> bool:
    """Say whether shape and all numbers are right.

    Args:
        got: What was returned.
        expected: What should have been.
    Returns:
        True if they are.
    Reference:
        The book's page on the checkers.
    """
    return got.shape == expected.shape and not differing(got, expected).any()
