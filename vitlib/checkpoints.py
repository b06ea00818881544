"""Saving a model, and loading one: ours, a peer's file or folder, or the hub's.

Files are safetensors: numbers and a header, nothing that can run. Pickles are read
with `weights_only`, which refuses everything but tensors and plain containers.
"""

import dataclasses
import json
import os
import pickle
import re
import warnings
from importlib import resources
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from vitlib.arguments import as_pair
from vitlib.convert import convert_state_dict, detect_source, infer_config
from vitlib.files import replace_whole
from vitlib.model_folder import read_config, read_preprocessing
from vitlib.vit import ViT, ViTConfig

__all__ = [
    "convert_state_dict",
    "detect_source",
    "infer_config",
    "load_checkpoint",
    "load_preprocessing",
    "load_pretrained",
    "save_checkpoint",
    "to_timm",
]

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".npz")

# The trained models that come with the library, by name, in 16-bit floats.
SHIPPED = {
    name: Path(str(resources.files("vitlib") / "assets" / f"{name}.safetensors"))
    for name in ("cifar10_vit", "fashion_mnist_vit")
}


def save_checkpoint(model: ViT, path: str | PathLike) -> None:
    """Write a model as one safetensors file that holds its config too.

    The file appears only when it is complete; an older one of that name stays
    until then.

    Args:
        model: The model to save; every parameter keeps its dtype.
        path: The file to write, ending in .safetensors, in a folder that exists.
    Raises:
        ValueError: the folder does not exist, the name ends otherwise, or the model
            is on the meta device.
        TypeError: the model is no `ViT`, or the path none.
        OSError: the disk is full or refuses.
    Reference:
        Chapter 09.
    """
    if not isinstance(model, ViT):
        raise TypeError(f"model is a {type(model).__name__}: give a vitlib ViT")
    if not isinstance(path, (str, PathLike)):
        raise TypeError(f"path is {path!r}: give a file's path")
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"path is {str(path)!r}: give a name ending in .safetensors")
    if not path.parent.is_dir():
        raise ValueError(f"there is no folder {str(path.parent)!r}: make it first")
    state = model.state_dict()
    if any(value.is_meta for value in state.values()):
        raise ValueError("the model is on the meta device: it has no numbers to save")
    # Copies, for a file cannot hold one tensor under two names.
    tensors = {name: value.clone().contiguous() for name, value in state.items()}
    config = json.dumps(dataclasses.asdict(model.config), default=_plain_number)
    try:
        with replace_whole(path) as part:
            # One entry: safetensors writes several in an order that changes.
            save_file(tensors, part, metadata={"vitlib_config": config})
            # It keeps the file to its owner; others may read what we write.
            umask = os.umask(0)
            os.umask(umask)
            part.chmod(0o666 & ~umask)
    except SafetensorError as error:
        raise OSError(f"{str(path)!r} could not be written ({error})") from error


def _plain_number(number: object) -> int | float:
    # JSON knows neither NumPy's numbers nor fractions.
    return number.item() if isinstance(number, np.generic) else float(number)


def load_checkpoint(path: str | PathLike) -> ViT:
    """Load a model that `save_checkpoint` wrote.

    Args:
        path: The file.
    Returns:
        The model in eval mode, its parameters with the dtypes that they had.
    Raises:
        ValueError: the file is missing, damaged or none of ours, or its tensors do
            not fit its config.
    Reference:
        Chapter 09.
    """
    path = _existing(path)
    config = _our_config(path)
    if config is None:
        raise ValueError(
            f"{str(path)!r} holds no vitlib config: load_pretrained reads what other "
            "libraries wrote"
        )
    return _filled(config, _read(path, ".safetensors"), path)


def to_timm(model: ViT) -> dict[str, Tensor]:
    """Give a model's state dict the names that timm expects.

    timm's VisionTransformer needs the same sizes, `norm_layer` with the same eps,
    the same form of GELU, and global_pool "token" for "cls", "avg" for "mean", "avg"
    with pool_include_prefix for "mean_all".

    Args:
        model: The model.
    Returns:
        timm's parameter name -> tensor, sharing memory with the model.
    Raises:
        ValueError: timm has no such model: Dual PatchNorm, or heads of another
            length than embed_dim / num_heads.
        TypeError: the model is no `ViT`.
    Reference:
        Chapter 09.
    """
    if not isinstance(model, ViT):
        raise TypeError(f"model is a {type(model).__name__}: give a vitlib ViT")
    config = model.config
    if config.patch_norm is True:
        raise ValueError("timm has no norm on raw patches (patch_norm=True)")
    if config.head_dim not in (None, config.embed_dim / config.num_heads):
        raise ValueError(
            f"timm's heads have embed_dim / num_heads = "
            f"{config.embed_dim}/{config.num_heads} values, not head_dim "
            f"{config.head_dim}"
        )
    last = "norm." if config.pool == "cls" else "fc_norm."
    return {
        re.sub(r"^norm\.", last, name): value
        for name, value in model.state_dict().items()
    }


def load_pretrained(
    name_or_path: str | PathLike,
    *,
    num_heads: int | None = None,
    norm_eps: float | None = None,
    gelu: str | None = None,
    pool: str | None = None,
    image_size: int | tuple[int, int] | None = None,
    patch_size: int | tuple[int, int] | None = None,
) -> ViT:
    """Load a ViT, whoever saved it, as a `ViT` with the same logits.

    It reads a model that ships, by its name in SHIPPED, as 32-bit floats; our own
    file; a folder with config.json and model.safetensors (or pytorch_model.bin), as
    transformers and timm save it; a hub name, "owner/name", with such a folder (needs
    huggingface_hub); or a bare state dict in a .safetensors, .pth, .pt, .bin or .npz
    file. A bare state dict holds numbers only: what its shapes do not say, the other
    arguments must.

    Args:
        name_or_path: The file, folder or name.
        num_heads: Number of heads.
        norm_eps: What the LayerNorms add to the variance.
        gelu: "erf" or "tanh".
        pool: "cls", "mean" or "mean_all".
        image_size: The size it was trained for; a square one is inferred. For
            another resolution, stretch the positions afterwards with
            `resample_pos_embed`.
        patch_size: Needed where patches are stored flat (vit-pytorch) and are not
            square, or of other images than colour and grey.
    Returns:
        The model in eval mode.
    Raises:
        ValueError: nothing is there, it is damaged or wants to run code, something
            is missing or contradicted, or the model has a feature that ours cannot
            express; the message says which.
        ImportError: a hub name was given and huggingface_hub is not installed.
    Reference:
        Chapter 09.
    """
    given = {
        "num_heads": num_heads,
        "norm_eps": norm_eps,
        "gelu": gelu,
        "pool": pool,
        "image_size": image_size,
        "patch_size": patch_size,
    }
    given = {name: value for name, value in given.items() if value is not None}
    if str(name_or_path) in SHIPPED:
        model = load_checkpoint(SHIPPED[str(name_or_path)]).float()
        _require_same(given, dataclasses.asdict(model.config), name_or_path)
        return model
    path = _located(name_or_path)
    if path.is_dir():
        told = read_config(path)
        path = _weights_in(path)
    else:
        config = _our_config(path) if path.suffix == ".safetensors" else None
        if config is not None:
            _require_same(given, dataclasses.asdict(config), path)
            return load_checkpoint(path)
        told = {}
    _require_same(given, told, path)
    state_dict = _read(path, path.suffix)
    source = detect_source(state_dict)
    config = infer_config(state_dict, source, **told | given)
    return _filled(config, convert_state_dict(state_dict, source, config), path)


def load_preprocessing(name_or_path: str | PathLike) -> dict:
    """Read how a folder's or hub name's model wants its photos prepared.

    Args:
        name_or_path: A folder or hub name as `load_pretrained` takes it.
    Returns:
        The keyword arguments for `vitlib.predict.preprocess`.
    Raises:
        ValueError: it says nothing of that, or something `preprocess` cannot do.
        ImportError: a hub name was given and huggingface_hub is not installed.
    Reference:
        Chapter 09.
    """
    folder = _located(name_or_path)
    if not folder.is_dir():
        raise ValueError(
            f"{str(folder)!r} is a file: how photos are prepared stands in the JSON "
            "files of a folder; else take vitlib.predict.PREPROCESSING of the source"
        )
    return read_preprocessing(folder)


def _filled(config: ViTConfig, tensors: dict[str, Tensor], path: Path) -> ViT:
    misfit = f"{str(path)!r} does not fit its config: "
    for name, value in tensors.items():
        if not value.is_floating_point():
            raise ValueError(f"{misfit}{name!r} holds {value.dtype}, no floats")
    depth = len({name.split(".")[1] for name in tensors if name.startswith("blocks.")})
    if depth != config.depth:
        raise ValueError(f"{misfit}it has {depth} blocks, depth is {config.depth}")
    try:
        # On the meta device nothing is allocated or initialised; the file's tensors
        # then become the parameters.
        with torch.device("meta"):
            model = ViT(config)
        model.load_state_dict(tensors, strict=True, assign=True)
    # Sizes that overflow, and keys or shapes that differ; these fill pages.
    except (RuntimeError, OverflowError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(misfit + reason[:300]) from error
    return model.eval()


def _require_same(given: dict, told: dict, path: Path) -> None:
    for name, value in given.items():
        sizes = name in ("image_size", "patch_size")
        if name in told and (
            as_pair(name, told[name]) != as_pair(name, value)
            if sizes
            else told[name] != value
        ):
            raise ValueError(
                f"{str(path)!r} comes with {name}={told[name]!r}, "
                f"{name}={value!r} was given: leave it out"
            )


def _existing(path: str | PathLike) -> Path:
    if not isinstance(path, (str, PathLike)):
        raise TypeError(f"path is a {type(path).__name__}: give a file's path")
    if not _exists(Path(path)) or not Path(path).is_file():
        raise ValueError(f"there is no file {str(path)!r}: check the path")
    return Path(path)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    # A name too long to be one, or a folder that may not be entered.
    except OSError:
        return False


def _weights_in(folder: Path) -> Path:
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (folder / name).is_file():
            return folder / name
    sharded = list(folder.glob("*.index.json"))
    raise ValueError(
        f"{str(folder)!r} has no model.safetensors: "
        + (
            "its weights are in several files; save them as one"
            if sharded
            else "check that the whole folder was copied"
        )
    )


def _located(name_or_path: str | PathLike) -> Path:
    if not isinstance(name_or_path, (str, PathLike)):
        raise TypeError(
            f"name_or_path is a {type(name_or_path).__name__}: give a path or a hub "
            "name"
        )
    path, name = Path(name_or_path), str(name_or_path)
    if _exists(path) and path.is_dir():
        return path
    if _exists(path) or path.suffix in SUFFIXES:
        if path.suffix not in SUFFIXES:
            raise ValueError(f"{name!r} is none of {', '.join(SUFFIXES)} and no folder")
        return _existing(path)
    if not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name):
        raise ValueError(
            f"{name!r} is no file, no folder, no hub name (owner/name) and none of "
            f"the models that ship ({', '.join(SHIPPED)}): check it"
        )
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise ImportError(
            f"{name!r} is no file or folder here; to fetch it from the Hugging Face "
            "hub: pip install huggingface_hub"
        ) from error
    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors"]))
    # The hub's client, its network library and the disk each fail in their own way.
    except Exception as error:
        raise ValueError(
            f"{name!r} is no file or folder here, and could not be fetched from the "
            f"Hugging Face hub ({type(error).__name__}: {error}): check the name and "
            "the network, or copy its folder here and give the path"
        ) from error


def _read(path: Path, suffix: str) -> dict[str, Tensor]:
    try:
        if suffix == ".safetensors":
            loaded = load_file(path)
        elif suffix == ".npz":
            # Opened here, so that a damaged one is closed too.
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                loaded = dict(arrays)
        else:
            # It warns of pickles that it is about to refuse.
            with warnings.catch_warnings(action="ignore"):
                loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        wanted = re.search(r"GLOBAL (\S+)", str(error))
        what = f"asks for {wanted[1]}" if wanted else "is damaged or no such file"
        raise ValueError(
            f"{str(path)!r} is a pickle that {what}: unpickling it could run any "
            "code, so nothing was loaded. A whole model was saved, or worse; where its "
            "origin is trusted, save model.state_dict() as safetensors there"
        ) from error
    # Each format's reader fails in its own way on bytes it does not understand.
    except Exception as error:
        reason = "" if suffix == ".npz" else f" ({error})"
        raise ValueError(
            f"{str(path)!r} cannot be read{reason}: it may be cut short, or hold "
            "pickled objects; nothing was loaded"
        ) from error
    while isinstance(loaded, dict):
        nested = [loaded.get(name) for name in ("state_dict", "model")]
        nested = [value for value in nested if isinstance(value, dict)]
        if not nested:
            break
        loaded = nested[0]
    if not isinstance(loaded, dict) or not loaded:
        what = "an empty one" if loaded == {} else f"a {type(loaded).__name__}"
        raise ValueError(f"{str(path)!r} holds no state dict, but {what}")
    if not all(isinstance(key, str) for key in loaded):
        raise ValueError(f"{str(path)!r} holds no state dict: not every key is a name")
    return loaded


def _our_config(path: Path) -> ViTConfig | None:
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get("vitlib_config")
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"{str(path)!r} is no whole safetensors file ({error}): it may be cut short"
        ) from error
    if text is None:
        return None
    try:
        said = json.loads(text)
        config = ViTConfig(**said)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(
            f"{str(path)!r} has a config that this vitlib cannot read ({error})"
        ) from error
    if unsaid := dataclasses.asdict(config).keys() - said.keys():
        raise ValueError(
            f"{str(path)!r} has a config without {', '.join(sorted(unsaid))}"
        )
    return config
