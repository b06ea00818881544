"""What every test shares: one seed, and weights worth comparing."""

import pytest
import torch
from hypothesis import HealthCheck, settings

settings.register_profile(
    "vitlib",
    deadline=None,
    derandomize=True,
    database=None,
    max_examples=40,
    # `seed` runs once for all examples of a test; they draw their own seeds.
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
settings.load_profile("vitlib")

# Two processes take whole files in this order: what is left at the end must be short.
LONGEST = ("test_hostile_class", "test_train", "test_checks")


def pytest_collection_modifyitems(items):
    """Begin with the files that take longest."""
    items.sort(key=lambda item: item.path.stem not in LONGEST)


@pytest.fixture(autouse=True)
def seed():
    """Start every test from the same random numbers."""
    torch.manual_seed(0)


@pytest.fixture
def jitter():
    """Move every parameter: a fresh model's zeros and ones hide mistakes."""

    def move(module, scale=0.3):
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.add_(scale * torch.randn_like(parameter))
        return module

    return move
