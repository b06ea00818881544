"""What the JSON files beside a checkpoint say, as transformers and timm write them."""

import json
import re
from pathlib import Path

# Touvron et al. 2021, Table 1; Dosovitskiy et al. 2021, Table 1.
TIMM_HEADS = {"tiny": 3, "small": 6, "base": 12, "large": 16, "huge": 16}
# What timm's model_args may hold without changing what the parameters mean.
TIMM_PLAIN = {
    "attn_drop_rate",
    "class_token",
    "depth",
    "drop_path_rate",
    "drop_rate",
    "dynamic_img_size",
    "embed_dim",
    "global_pool",
    "img_size",
    "in_chans",
    "mlp_ratio",
    "num_classes",
    "num_heads",
    "patch_size",
    "pool_include_prefix",
    "pos_drop_rate",
    "proj_drop_rate",
    "qkv_bias",
}
# transformers' name of an activation -> ours.
TRANSFORMERS_GELU = {
    "gelu": "erf",
    "gelu_new": "tanh",
    "gelu_fast": "tanh",
    "gelu_pytorch_tanh": "tanh",
}
# PIL's number of a filter -> its name.
RESAMPLE = {2: "bilinear", 3: "bicubic"}


def read_config(folder: Path) -> dict:
    """Read from config.json what the shapes of the weights do not show.

    Args:
        folder: A folder that transformers or timm saved.
    Returns:
        Keyword arguments for `vitlib.convert.infer_config`.
    Raises:
        ValueError: there is no config.json, or the model is of a kind that cannot
            be expressed or is not known.
    Reference:
        Chapter 09.
    """
    config = _config_of(folder)
    if "architecture" in config:
        return _timm_config(config)
    if config.get("model_type") != "vit":
        raise ValueError(
            f"config.json has model_type {config.get('model_type')!r}: only 'vit' and "
            "timm's ViTs can be read"
        )
    activation = config.field("hidden_act", str, "gelu")
    if activation not in TRANSFORMERS_GELU:
        raise ValueError(
            f"config.json has hidden_act {activation!r}, which ViT lacks: it has "
            + ", ".join(repr(name) for name in TRANSFORMERS_GELU)
        )
    return {
        "num_heads": config.field("num_attention_heads", int, 12),
        "norm_eps": config.field("layer_norm_eps", (int, float), 1e-12),
        "gelu": TRANSFORMERS_GELU[activation],
        "pool": "cls",
        "image_size": config.size("image_size", 224),
    }


def read_preprocessing(folder: Path) -> dict:
    """Read how the model in a folder wants its photos prepared.

    Args:
        folder: A folder that transformers or timm saved.
    Returns:
        Keyword arguments for `vitlib.predict.preprocess`.
    Raises:
        ValueError: the folder does not say, or asks for what `preprocess` lacks.
    Reference:
        Chapter 09.
    """
    folder = Path(folder)
    theirs = folder / "preprocessor_config.json"
    if theirs.is_file():
        return _transformers_preprocessing(_Json(theirs))
    config = _config_of(folder)
    if "architecture" not in config:
        raise ValueError(f"{str(folder)!r} has no preprocessor_config.json")
    return _timm_preprocessing(config.inside("pretrained_cfg") or config)


class _Json(dict):
    """The object in a JSON file, read field by field."""

    def __init__(self, path: Path, fields: dict | None = None):
        self.path = path
        if fields is None:
            try:
                fields = json.loads(path.read_text("utf-8"))
            except (ValueError, RecursionError) as error:
                raise ValueError(f"{str(path)!r} is no JSON ({error})") from error
        if not isinstance(fields, dict):
            raise ValueError(
                f"{str(path)!r} holds a {type(fields).__name__}, no object"
            )
        super().__init__(fields)

    def refuse(self, name: str, why: str) -> ValueError:
        value = repr(self[name]) if name in self else "nothing"
        return ValueError(f"{self.path.name} has {value} for {name}: {why}")

    def field(self, name: str, kind: type | tuple, default: object = None) -> object:
        value = self.get(name, default)
        if not isinstance(value, kind) or (
            isinstance(value, bool) and kind is not bool
        ):
            raise self.refuse(name, "that cannot be read; give the arguments yourself")
        return value

    def inside(self, name: str) -> "_Json":
        return _Json(self.path, self.field(name, (dict, type(None))) or {})

    def numbers(
        self, name: str, count: int, kind: type | tuple = (int, float)
    ) -> tuple:
        values = self.field(name, list)
        right = len(values) == count and all(
            isinstance(value, kind) and not isinstance(value, bool) for value in values
        )
        if not right:
            raise self.refuse(name, f"a list of {count} numbers is needed")
        return tuple(values)

    def size(self, name: str, default: int | None = None) -> int | tuple[int, int]:
        if isinstance(self.get(name), list):
            height, width = self.numbers(name, 2, int)
            return height if height == width else (height, width)
        return self.field(name, int, default)


def _config_of(folder: Path) -> _Json:
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        raise ValueError(
            f"{str(folder)!r} has no config.json: give the weights file itself, with "
            "num_heads, norm_eps, gelu and pool"
        )
    return _Json(folder / "config.json")


def _timm_config(config: _Json) -> dict:
    name, arguments = config.field("architecture", str), config.inside("model_args")
    known = re.fullmatch(r"(?:vit|deit)_([a-z]+)_patch\d+_\d+", name)
    if not known or known[1] not in TIMM_HEADS:
        raise ValueError(
            f"config.json has timm's architecture {name!r}, whose heads, eps and GELU "
            "are not known here: give the weights file itself, with num_heads, "
            "norm_eps, gelu and pool"
        )
    if unknown := sorted(arguments.keys() - TIMM_PLAIN):
        raise ValueError(
            f"config.json builds timm's {name} with {unknown[0]}="
            f"{arguments[unknown[0]]!r}, which may change what its numbers mean: give "
            "the weights file itself, with num_heads, norm_eps, gelu and pool"
        )
    pool = arguments.get("global_pool", config.get("global_pool", "token"))
    if pool not in ("token", "avg"):
        raise ValueError(f"config.json has global_pool {pool!r}, which ViT lacks")
    mean = "mean_all" if arguments.get("pool_include_prefix") else "mean"
    told = {
        "num_heads": arguments.field("num_heads", int, TIMM_HEADS[known[1]]),
        "norm_eps": 1e-6,
        "gelu": "erf",
        "pool": "cls" if pool == "token" else mean,
    }
    if "img_size" in arguments:
        told["image_size"] = arguments.size("img_size")
    return told


def _transformers_preprocessing(config: _Json) -> dict:
    impossible = "preprocess cannot do that; prepare the photos with transformers"
    for name in ("do_resize", "do_rescale", "do_normalize"):
        if config.get(name, True) is not True:
            raise config.refuse(name, impossible)
    if config.get("do_center_crop"):
        raise config.refuse("do_center_crop", impossible)
    if config.field("resample", int) not in RESAMPLE:
        raise config.refuse("resample", impossible)
    factor = config.field("rescale_factor", (int, float), 1 / 255)
    if not abs(factor * 255 - 1) <= 1e-6:
        raise config.refuse("rescale_factor", impossible)
    if isinstance(config.get("size"), dict):
        sides = config.inside("size")
        if not sides.keys() >= {"height", "width"}:
            raise config.refuse("size", impossible)
        config = _Json(
            config.path, config | {"size": [sides["height"], sides["width"]]}
        )
    return {
        "image_size": config.size("size"),
        "resize": "squash",
        "crop_fraction": 1.0,
        "interpolation": RESAMPLE[config["resample"]],
        "mean": config.numbers("image_mean", 3),
        "std": config.numbers("image_std", 3),
    }


def _timm_preprocessing(config: _Json) -> dict:
    impossible = "preprocess cannot do that; prepare the photos with timm"
    resize = {"center": "shorter", "squash": "squash"}
    crop_mode = config.field("crop_mode", str, "center")
    if crop_mode not in resize:
        raise config.refuse("crop_mode", impossible)
    if config.field("interpolation", str) not in RESAMPLE.values():
        raise config.refuse("interpolation", impossible)
    _, height, width = config.numbers("input_size", 3, int)
    return {
        "image_size": height if height == width else (height, width),
        "resize": resize[crop_mode],
        "crop_fraction": config.field("crop_pct", (int, float)),
        "interpolation": config["interpolation"],
        "mean": config.numbers("mean", 3),
        "std": config.numbers("std", 3),
    }
