"""Other libraries' state dicts, turned into ours by the tables of `vitlib.dialects`."""

import difflib
import math
import re
from collections.abc import Iterable, Mapping

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn

from vitlib.arguments import as_pair, require_choice, require_whole
from vitlib.cls_token import POOLS
from vitlib.dialects import (
    DIALECTS,
    JAX,
    SOURCES,
    TIMM,
    VIT_PYTORCH,
    Dialect,
    Row,
    axes_of,
)
from vitlib.encoder import hidden_dim_of
from vitlib.multi_head import head_dim_of
from vitlib.vit import ViT, ViTConfig

# A piece of a key -> the feature it belongs to, and the way out where there is one.
FEATURES = {
    r"dist_token|head_dist|distill": ("a distillation token (DeiT distilled)", ""),
    r"reg_token|register_token": ("register tokens", ""),
    r"[./_](q_norm|k_norm|query_ln|key_ln|query_norm|key_norm)\b": ("qk-norm", ""),
    r"\bls[12]\b|layer_?scale|gamma_[12]": (
        "LayerScale",
        ": multiply the rows of each block's attn.proj and mlp.fc2, weight and bias, "
        "by their gamma, and drop the gammas",
    ),
    r"pre_logits": ("pre_logits, a hidden layer with tanh before the head", ""),
    r"norm_pre|pre_lay(er|r)norm|ln_pre": ("a norm before the first block", ""),
    r"rel_pos|relative_position|\brope\b|rotary": (
        "another position scheme (relative)",
        "",
    ),
    r"patch_embed\.backbone|conv_proj\.conv|conv_root|unit\d": (
        "a convolutional stem (hybrid)",
        "",
    ),
}


def detect_source(state_dict: Mapping) -> str:
    """Tell from its keys which source wrote a state dict.

    Args:
        state_dict: Parameter name -> tensor or array.
    Returns:
        One of SOURCES.
    Raises:
        ValueError: none of them did.
    Reference:
        Chapter 09.
    """
    tensors = _tensors_of(state_dict)
    source = _source_of(tensors)
    if source is not None:
        return source
    raise ValueError(
        f"no known source has keys like {_some(tensors)}: the known ones are "
        f"{', '.join(SOURCES)}; a new one needs a table as in vitlib/dialects.py"
    )


def infer_config(
    state_dict: Mapping,
    source: str,
    *,
    num_heads: int | None = None,
    norm_eps: float | None = None,
    gelu: str | None = None,
    pool: str | None = None,
    image_size: int | tuple[int, int] | None = None,
    patch_size: int | tuple[int, int] | None = None,
) -> ViTConfig:
    """Read a model's sizes from the shapes in its state dict.

    What shapes do not show must be given, unless the source's code leaves no
    choice.

    Args:
        state_dict: Parameter name -> tensor or array.
        source: Who wrote it, one of SOURCES.
        num_heads: Number of heads; only "jax" gives them an axis.
        norm_eps: What the LayerNorms add to the variance.
        gelu: "erf" or "tanh".
        pool: "cls", "mean" or "mean_all".
        image_size: The size it was trained for; a square one is inferred.
        patch_size: Needed where patches are flat (vit-pytorch) and not square, or of
            other images than colour and grey.
    Returns:
        The config that `convert_state_dict` and `ViT` take.
    Raises:
        ValueError: something is missing, contradicts the source, or cannot be
            expressed.
    Reference:
        Chapter 09.
    """
    tensors = _tensors_of(state_dict)
    dialect = _dialect_of(tensors, source)
    if pool is not None:
        require_choice("pool", pool, POOLS)
    said = {"num_heads": num_heads, "norm_eps": norm_eps, "gelu": gelu, "pool": pool}
    fixed = {
        name: values[0] for name, values in dialect.fixed.items() if len(values) == 1
    }
    missing = [name for name in said if said[name] is None and name not in fixed]

    sizes = {"three": 3}
    if num_heads is not None:
        sizes["h"] = require_whole("num_heads", num_heads)
    if patch_size is not None:
        sizes["p1"], sizes["p2"] = as_pair("patch_size", patch_size)
    found = _measure(tensors, dialect, sizes)
    missing = [name for name in missing if name != "num_heads" or "h" not in sizes]
    if missing:
        pools = ", ".join(map(repr, dialect.fixed.get("pool", POOLS)))
        pools = " or ".join(pools.rsplit(", ", 1))
        asked = _ASKED | {"pool": f"pool ({pools})"}
        raise ValueError(
            f"a {source} state dict does not say {', '.join(missing)}: look them up in "
            f"the code that trained it, and give {', '.join(map(asked.get, missing))}"
        )
    choice = {
        name: fixed[name] if said[name] is None else said[name]
        for name in ("norm_eps", "gelu", "pool")
    }
    class_token = "cls_token" in found
    num_heads, embed_dim = sizes["h"], sizes["e"]
    config = ViTConfig(
        image_size=_image_size_of(sizes, class_token, image_size),
        patch_size=_plain(sizes["p1"], sizes["p2"]),
        in_channels=sizes["c"],
        num_classes=sizes["k"],
        embed_dim=embed_dim,
        depth=_depth_of(tensors, dialect),
        num_heads=num_heads,
        head_dim=None if num_heads * sizes["d"] == embed_dim else sizes["d"],
        mlp_ratio=_ratio_of(sizes["m"], embed_dim),
        qkv_bias="blocks.{i}.attn.qkv.bias" in found,
        class_token=class_token,
        patch_norm="patch_embed.pixel_norm.weight" in found
        or ("after" if "patch_embed.norm.weight" in found else False),
        **choice,
    )
    _refuse_config(source, dialect, config)
    return config


def convert_state_dict(
    state_dict: Mapping, source: str, config: ViTConfig
) -> dict[str, Tensor]:
    """Turn another library's state dict into ours.

    `ViT(config).load_state_dict(...)` takes the result with `strict=True`, and the
    model then gives the logits of the one that was saved.

    Args:
        state_dict: Parameter name -> tensor or array.
        source: Who wrote it, one of SOURCES.
        config: The model to fill; `infer_config` reads most of it from the shapes.
    Returns:
        Our parameter name -> tensor; some share memory with `state_dict`.
    Raises:
        ValueError: a key is missing, left over or misshaped, the config contradicts
            what the source's code fixes, or the model has a feature that ours
            cannot express; the message names it.
        TypeError: `state_dict` or `config` is something else.
    Reference:
        Chapter 09.
    """
    tensors = _tensors_of(state_dict)
    dialect = _dialect_of(tensors, source)
    try:
        with torch.device("meta"):
            wanted = list(ViT(config).state_dict())
    except (RuntimeError, OverflowError) as error:
        raise ValueError(
            f"no tensor is as large as the config asks: {error}"
        ) from error
    _refuse_config(source, dialect, config)
    _require_depth(tensors, dialect, config)

    rows, sizes = dialect.rows(), _sizes_of(config)
    converted, used, missing = {}, set(), []
    for name in wanted:
        number = re.match(r"blocks\.(\d+)\.", name)
        row = rows[name.replace(number[1], "{i}", 1) if number else name]
        keys = [key.replace("{i}", number[1] if number else "") for key in row.keys]
        absent = [key for key in keys if key not in tensors]
        module = keys[0].rpartition(".")[0]
        if (
            source == "vit-pytorch"
            and _has_no_proj(name, config)
            and not any(key.startswith(f"{module}.") for key in tensors)
        ):
            converted[name] = _identity(name, config, tensors[dialect.sign].dtype)
        elif absent:
            missing += absent
        else:
            parts = [
                _require_shape(key, tensors[key], row.their_axes, sizes, config)
                for key in keys
            ]
            converted[name] = _rearranged(parts, row, sizes)
            used.update(keys)
    surplus = [
        key
        for key in tensors
        if key not in used and not key.startswith(dialect.ignored)
    ]
    _refuse_keys(missing, surplus, used)

    factor = math.sqrt(sizes["d"] / sizes[dialect.score_root])
    if factor != 1:
        for name in converted:
            if ".attn.qkv." in name:
                q, kv = converted[name].tensor_split([sizes["h"] * sizes["d"]])
                converted[name] = torch.cat([q * factor, kv])
    return converted


_PREFIXES = ("opt/target/", "module.", "_orig_mod.", "model.")

# What an error message says of an argument that it asks for.
_ASKED = {
    "num_heads": "num_heads (embed_dim / 64 in most published models)",
    "norm_eps": "norm_eps (1e-6, 1e-5 and 1e-12 are all in use)",
    "gelu": "gelu ('erf' or 'tanh')",
}


def _tensors_of(state_dict: Mapping) -> dict[str, Tensor]:
    if isinstance(state_dict, nn.Module):
        raise TypeError("a module arrived: give its state_dict()")
    if not isinstance(state_dict, Mapping) or not state_dict:
        raise TypeError(
            f"state_dict is a {type(state_dict).__name__}: give a non-empty mapping "
            "from parameter names to tensors or arrays"
        )
    for key in state_dict:
        if not isinstance(key, str):
            raise TypeError(f"{key!r} is no parameter's name: give a state dict")
    _refuse_features(state_dict)
    values = dict(state_dict)
    # JAX's training state stands beside the parameters.
    if any(key.startswith("opt/target/") for key in values):
        values = {k: v for k, v in values.items() if k.startswith("opt/target/")}
    # What wrappers put in front of every key, in any order.
    while prefix := next(
        (p for p in _PREFIXES if all(key.startswith(p) for key in values)), None
    ):
        values = {key[len(prefix) :]: value for key, value in values.items()}
    tensors = {}
    for key, value in values.items():
        if isinstance(value, np.ndarray) and value.dtype.kind == "f":
            # A copy in this machine's byte order; PyTorch stops at 64 bits.
            bits = min(8 * value.dtype.itemsize, 64)
            value = torch.from_numpy(np.array(value, dtype=f"float{bits}"))
        if not (isinstance(value, Tensor) and value.is_floating_point()):
            raise ValueError(
                f"{key!r} holds {getattr(value, 'dtype', type(value).__name__)}, no "
                "floats: give the state dict alone; checkpoints often keep it under "
                "'model' or 'state_dict'"
            )
        tensors[key] = value
    return tensors


def _dialect_of(tensors: dict[str, Tensor], source: str) -> Dialect:
    require_choice("source", source, SOURCES)
    for dialect in DIALECTS[source]:
        if dialect.sign in tensors:
            rows = dialect.rows()
            _refuse_missing_class_token(rows["cls_token"], tensors, dialect)
            _require_positions(rows["pos_embed"], tensors)
            return dialect
    signs = " or ".join(repr(dialect.sign) for dialect in DIALECTS[source])
    other = _source_of(tensors)
    raise ValueError(
        f"this is no {source} state dict: {signs} is missing, there are "
        f"{_some(tensors)}" + (f"; it looks like {other!r}" if other else "")
    )


def _source_of(tensors: dict[str, Tensor]) -> str | None:
    for source, dialects in DIALECTS.items():
        if any(dialect.sign in tensors for dialect in dialects):
            return source
    bodies = (dialect.sign.removeprefix("vit.") for dialect in DIALECTS["transformers"])
    if any(sign in tensors for sign in bodies):
        raise ValueError(
            "this is a transformers model without its classifier: save the whole "
            "ViTForImageClassification"
        )
    return None


def _require_positions(row: Row, tensors: dict[str, Tensor]) -> None:
    (key,) = row.keys
    if key not in tensors:
        raise ValueError(
            f"{key!r} is missing: another position scheme; if its table is fixed, put "
            "the table there"
        )
    shape, axes = tuple(tensors[key].shape), axes_of(row.their_axes)
    if len(shape) != len(axes) or min(shape[-2:]) == 0:
        raise ValueError(
            f"{key!r} has shape {shape}: another position scheme; one table is needed, "
            f"({', '.join(' '.join(axis) for axis in axes)})"
        )


def _refuse_features(state_dict: Mapping) -> None:
    for key in state_dict:
        for pattern, (feature, way_out) in FEATURES.items():
            if re.search(pattern, str(key)):
                raise ValueError(
                    f"{key!r}: the model has {feature}, which ViT cannot express"
                    + way_out
                )


_NORM_FIRST = (
    "norm before mean pooling: such a {} model normalises every token and averages "
    "then; ViT pools first, which gives other logits"
)


def _refuse_missing_class_token(
    row: Row, tensors: dict[str, Tensor], dialect: Dialect
) -> None:
    (key,) = row.keys
    missing = key not in tensors or tensors[key].shape[:1] == (0,)
    for source, normalising in (("jax", JAX), ("vit-pytorch", VIT_PYTORCH)):
        if dialect is normalising and missing:
            raise ValueError(_NORM_FIRST.format(source))


def _refuse_config(source: str, dialect: Dialect, config: ViTConfig) -> None:
    if dialect in (JAX, VIT_PYTORCH, TIMM) and config.pool != "cls":
        raise ValueError(_NORM_FIRST.format(source))
    for name, values in dialect.fixed.items():
        value = getattr(config, name)
        if value not in values:
            raise ValueError(
                f"config has {name}={value!r}, a {source} model of this kind always "
                f"has {' or '.join(repr(value) for value in values)}: give that"
            )


def _depth_of(tensors: dict[str, Tensor], dialect: Dialect) -> int:
    blocks = dialect.blocks_of(tensors)
    if not blocks:
        _refuse_keys([dialect.block.replace("{i}", "0")], [], set(tensors))
    if blocks != set(range(len(blocks))):
        raise ValueError(
            f"the state dict has {len(blocks)} blocks, the last is "
            f"{dialect.block.replace('{i}', str(max(blocks)))!r}: one is missing or "
            "left over"
        )
    return len(blocks)


def _require_depth(
    tensors: dict[str, Tensor], dialect: Dialect, config: ViTConfig
) -> None:
    depth = _depth_of(tensors, dialect)
    if depth != config.depth:
        raise ValueError(
            f"the state dict has {depth} blocks, config.depth is {config.depth}: "
            f"give depth={depth}"
        )


def _refuse_keys(missing: list[str], surplus: list[str], used: set[str]) -> None:
    if missing:
        head = re.match(r"heads?[./]|classifier|mlp_head\.(1|weight|bias)", missing[0])
        raise ValueError(
            f"{missing[0]!r} is missing{_more(missing)}: "
            + _nearest(missing[0], surplus or used, "the nearest key that is there")
            + ("; without its head a model cannot score classes" if head else "")
        )
    if surplus:
        raise ValueError(
            f"{surplus[0]!r} is left over{_more(surplus)}: "
            + _nearest(surplus[0], used, "the nearest key that is expected")
            + "; the model has a part that ViT or the config lacks"
        )


def _more(keys: list[str]) -> str:
    return f", and {len(keys) - 1} more" if len(keys) > 1 else ""


def _nearest(key: str, others: Iterable[str], what: str) -> str:
    near = difflib.get_close_matches(key, sorted(others), n=1, cutoff=0.0)
    return f"{what} is {near[0]!r}"


def _some(tensors: dict[str, Tensor]) -> str:
    return ", ".join(repr(key) for key in list(tensors)[:3])


def _require_shape(
    key: str, tensor: Tensor, axes: str, sizes: dict[str, int], config: ViTConfig
) -> Tensor:
    lengths = tuple(
        math.prod(1 if letter == "1" else sizes[letter] for letter in axis)
        for axis in axes_of(axes)
    )
    if tuple(tensor.shape) == lengths:
        return tensor
    if "t" in axes.split() and tensor.shape[-1] == lengths[-1]:
        _refuse_positions(key, tensor.shape[-2], config)
    raise ValueError(
        f"{key!r} has shape {tuple(tensor.shape)}, the config needs {lengths}, "
        f"that is ({', '.join('*'.join(axis) for axis in axes_of(axes))}): correct "
        "the config"
    )


def _refuse_positions(key: str, rows: int, config: ViTConfig) -> None:
    if config.class_token and rows == config.num_patches:
        raise ValueError(
            f"{key!r} has {rows} rows, none for the class token: another position "
            "scheme; put a row of zeros in front of the others"
        )
    side = math.isqrt(max(rows - config.class_token, 0))
    if side and side**2 + config.class_token == rows:
        raise ValueError(
            f"{key!r} has {rows} rows, learned for a grid of {side}x{side}; config "
            f"has {config.grid_size[0]}x{config.grid_size[1]}: convert with the "
            f"file's own image_size, then stretch the converted pos_embed with "
            f"resample_pos_embed(pos_embed, {side}, {config.grid_size})"
        )


def _sizes_of(config: ViTConfig) -> dict[str, int]:
    p1, p2 = as_pair("patch_size", config.patch_size)
    return {
        "three": 3,
        "e": config.embed_dim,
        "h": config.num_heads,
        "d": head_dim_of(config.embed_dim, config.num_heads, config.head_dim),
        "m": hidden_dim_of(config.embed_dim, config.mlp_ratio),
        "c": config.in_channels,
        "p1": p1,
        "p2": p2,
        "t": config.num_tokens,
        "k": config.num_classes,
    }


def _rearranged(parts: list[Tensor], row: Row, sizes: dict[str, int]) -> Tensor:
    theirs, tensor = row.their_axes, parts[0]
    if len(parts) > 1:
        theirs, tensor = f"three {theirs}", torch.stack(parts)
    letters = {letter for axis in axes_of(theirs) for letter in axis} - {"1"}
    return rearrange(
        tensor,
        f"{theirs} -> {row.our_axes}",
        **{letter: sizes[letter] for letter in letters},
    ).contiguous()


def _has_no_proj(name: str, config: ViTConfig) -> bool:
    one_head = config.num_heads == 1 and config.head_dim in (None, config.embed_dim)
    return ".attn.proj." in name and one_head


def _identity(name: str, config: ViTConfig, dtype: torch.dtype) -> Tensor:
    if name.endswith("weight"):
        return torch.eye(config.embed_dim, dtype=dtype)
    return torch.zeros(config.embed_dim, dtype=dtype)


def _measure(
    tensors: dict[str, Tensor], dialect: Dialect, sizes: dict[str, int]
) -> set[str]:
    """Fill `sizes` from the shapes; return which of our parameters are there."""
    found = {}
    for name, row in dialect.rows().items():
        key, axes = row.keys[0].replace("{i}", "0"), axes_of(row.their_axes)
        if key in tensors:
            shape = tuple(tensors[key].shape)
            if len(shape) != len(axes) or 0 in shape:
                raise ValueError(
                    f"{key!r} has shape {shape}, its axes are {row.their_axes}"
                )
            found[name] = [(key, *axis) for axis in zip(axes, shape, strict=True)]
        elif name in _NEEDED:
            _refuse_keys([key], [], set(tensors))
    given = set(sizes)
    # A group such as (h d) opens once all but one of its letters are known.
    pairs = [axis for axes in found.values() for axis in axes]
    for key, letters, length in sorted(pairs, key=lambda axis: len(axis[1])):
        unknown = [letter for letter in letters if letter not in {"1", *sizes}]
        known = math.prod(sizes[letter] for letter in letters if letter in sizes)
        if "c" in unknown and len(unknown) > 1:
            _measure_flat_patch(length, sizes)
        elif len(unknown) == 1 and length % known == 0:
            sizes[unknown[0]] = length // known
        elif len(unknown) == 1 or (given.issuperset(letters) and length != known):
            names = {"h": "num_heads", "p1": "patch_size", "p2": "patch_size"}
            raise ValueError(
                f"{key!r} has an axis ({' '.join(letters)}) of {length}; that does not "
                "fit "
                + " and ".join(
                    f"{names.get(x, x)} {sizes[x]}" for x in letters if x in sizes
                )
                + ": correct what was given"
            )
    return set(found)


# What the sizes are read from.
_NEEDED = (
    "patch_embed.proj.weight",
    "blocks.{i}.attn.qkv.weight",
    "blocks.{i}.mlp.fc1.weight",
    "head.weight",
)


def _measure_flat_patch(length: int, sizes: dict[str, int]) -> None:
    for channels in (3, 1):
        side = math.isqrt(length // channels)
        if side**2 * channels == length:
            sizes |= {"c": channels, "p1": side, "p2": side}
            return
    raise ValueError(
        f"a flat patch has {length} values, no square in colour or grey: "
        "give patch_size=(p1, p2)"
    )


def _image_size_of(
    sizes: dict[str, int],
    class_token: bool,
    image_size: int | tuple[int, int] | None,
) -> int | tuple[int, int]:
    if image_size is not None:
        return image_size
    for num_patches in (sizes["t"] - class_token, sizes["t"]):
        side = math.isqrt(num_patches)
        if side and side**2 == num_patches:
            return _plain(side * sizes["p1"], side * sizes["p2"])
    raise ValueError(
        f"{sizes['t'] - class_token} patches are no square grid: give "
        "image_size=(H, W), the size it was trained for"
    )


def _plain(height: int, width: int) -> int | tuple[int, int]:
    return height if height == width else (height, width)


def _ratio_of(hidden_dim: int, embed_dim: int) -> float:
    # Rounded down, e * (m / e) can be m - 1.
    ratio = hidden_dim / embed_dim
    return ratio if int(embed_dim * ratio) == hidden_dim else math.nextafter(ratio, 9e9)
