"""What importing and comparing the other libraries needs."""

import importlib.util
import socket
from pathlib import Path

import pytest
import torch


def declare_missing_operators():
    """Let `import torchvision` through where its compiled part does not load.

    A torchvision built for a GPU cannot load it beside a CPU torch, and the import
    then fails on two operators that no Vision Transformer calls. They are declared
    here, without code, and only where the compiled part does not bring them.
    """
    spec = importlib.util.find_spec("torchvision")
    if spec is None:
        return None
    for folder in spec.submodule_search_locations:
        for compiled in Path(folder).glob("_C.*"):
            try:
                torch.ops.load_library(str(compiled))
            except OSError:
                continue
            return None
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            library.define(
                f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            )
    return library


# Kept: the declarations go when the object does.
DECLARED = declare_missing_operators()


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Nothing here may fetch anything, nor ask where it would be."""

    def refuse(*request, **options):
        raise AssertionError(f"a test tried to reach the network: {request}")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture(params=[torch.float32, torch.float64], ids=["float32", "float64"])
def dtype(request):
    return request.param
