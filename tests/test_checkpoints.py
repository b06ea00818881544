"""What is saved comes back bit for bit, and nothing that is loaded can run."""

import argparse
import dataclasses
import errno
import gc
import json
import os
import pickle
import re
import sys
import types
import warnings
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from foreign import FORMS, config_of, draw_state, fill, make_model, source_of, write
from foreign import told_of as told_of_form
from PIL import Image
from safetensors import SafetensorError, safe_open
from torch import nn

from vitlib import ViT, ViTConfig, checkpoints
from vitlib.checkpoints import (
    load_checkpoint,
    load_preprocessing,
    load_pretrained,
    save_checkpoint,
    to_timm,
)
from vitlib.convert import convert_state_dict
from vitlib.predict import preprocess

CONFIG = config_of("timm")
TOLD = told_of_form("timm")
FORM_NAMES = list(FORMS)
TRAINED = (
    "unpickling it could run any code, so nothing was loaded. A whole model was "
    "saved, or worse; where its origin is trusted, save model.state_dict() as "
    "safetensors there"
)


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    """Work where no name of a test is a file by accident."""
    monkeypatch.chdir(tmp_path)


def exact_match(message):
    return f"^{re.escape(message)}$"


def assert_same_model(found, expected):
    """Bit for bit, in dtype, name and order; ready to be asked."""
    assert type(found) is ViT and not found.training
    assert found.config == expected.config
    state, wanted = found.state_dict(), expected.state_dict()
    assert list(state) == list(wanted)
    for name, value in wanted.items():
        assert state[name].dtype == value.dtype, name
        assert torch.equal(state[name], value), name
    assert all(p.requires_grad and not p.is_meta for p in found.parameters())


def listed(folder):
    return sorted(path.name for path in folder.iterdir())


# ---- ours -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64]
)
def test_a_model_comes_back(tmp_path, dtype):
    model = make_model().to(dtype)
    save_checkpoint(model, tmp_path / "model.safetensors")
    assert listed(tmp_path) == ["model.safetensors"]
    found = load_checkpoint(tmp_path / "model.safetensors")
    assert_same_model(found, model)
    images = torch.randn(2, 3, 6, 6).to(dtype)
    torch.testing.assert_close(found(images), model(images))


def test_parameters_of_several_dtypes_come_back(tmp_path):
    model = make_model()
    model.head.to(torch.float64)
    model.norm.to(torch.bfloat16)
    model.blocks[1].half()
    save_checkpoint(model, tmp_path / "m.safetensors")
    assert_same_model(load_checkpoint(tmp_path / "m.safetensors"), model)


def test_numbers_that_are_easily_lost_come_back(tmp_path):
    model = make_model()
    odd = torch.tensor([0.0, -0.0, 1e-45, -1e-40, 3e38, float("inf"), -float("inf")])
    with torch.no_grad():
        model.head.bias.copy_(odd)
    save_checkpoint(model, tmp_path / "m.safetensors")
    found = load_checkpoint(tmp_path / "m.safetensors").head.bias
    assert torch.equal(found.view(torch.int32), model.head.bias.view(torch.int32))


def test_parameters_in_any_memory_layout_come_back(tmp_path):
    model = make_model()
    block = model.blocks[0].attn
    block.qkv.weight = nn.Parameter(torch.randn(12, 36).T)
    block.proj.weight = nn.Parameter(torch.randn(24, 24)[::2, ::2])
    model.pos_embed = nn.Parameter(torch.randn(1, 1, 12).expand(1, 10, 12))
    model.patch_embed.proj.weight = nn.Parameter(
        torch.randn(12, 3, 2, 2).contiguous(memory_format=torch.channels_last)
    )
    both = torch.randn(24)
    model.norm.weight = nn.Parameter(both[:12])
    model.norm.bias = nn.Parameter(both[12:])
    assert not block.qkv.weight.is_contiguous()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    save_checkpoint(model, tmp_path / "m.safetensors")
    assert_same_model(load_checkpoint(tmp_path / "m.safetensors"), model)
    # Saving changed nothing, not even the layout.
    assert not block.qkv.weight.is_contiguous()
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


@pytest.mark.parametrize(
    "changes",
    [
        {"image_size": (6, 8), "patch_size": [2, 4]},
        {"head_dim": 5, "mlp_ratio": 1 / 3, "qkv_bias": False},
        {"norm_eps": 1e-12, "gelu": "tanh", "patch_norm": True},
        {"class_token": False, "pool": "mean", "patch_norm": "after"},
        {"pool": "mean_all", "fused": True, "drop_rate": 0.1},
        {"attn_drop_rate": 0.2, "drop_path_rate": 0.3, "depth": 3},
    ],
)
def test_every_config_comes_back(tmp_path, changes):
    model = make_model(config_of("timm", **changes)).train()
    save_checkpoint(model, tmp_path / "m.safetensors")
    assert model.training
    found = load_checkpoint(tmp_path / "m.safetensors")
    assert_same_model(found, model.eval())
    rates = {m.p for m in found.modules() if isinstance(m, nn.Dropout)}
    assert rates == {m.p for m in model.modules() if isinstance(m, nn.Dropout)}


def test_a_loaded_model_can_be_trained(tmp_path):
    save_checkpoint(make_model(), tmp_path / "m.safetensors")
    model = load_checkpoint(tmp_path / "m.safetensors")
    model.train()(torch.randn(2, 3, 6, 6)).sum().backward()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.sub_(parameter.grad)
    # The file is not touched by that.
    assert not torch.equal(
        model.head.bias, load_checkpoint(tmp_path / "m.safetensors").head.bias
    )


def test_the_file_can_be_read_without_us(tmp_path):
    model = make_model()
    save_checkpoint(model, tmp_path / "m.safetensors")
    with safe_open(tmp_path / "m.safetensors", framework="pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert metadata.keys() == {"vitlib_config"}
    assert ViTConfig(**json.loads(metadata["vitlib_config"])) == model.config
    assert tensors.keys() == model.state_dict().keys()
    assert all(torch.equal(tensors[k], v) for k, v in model.state_dict().items())


def test_paths_may_be_strings(tmp_path):
    model = make_model()
    save_checkpoint(model, "m.safetensors")
    assert_same_model(load_checkpoint("m.safetensors"), model)
    assert_same_model(load_pretrained("m.safetensors"), model)
    assert_same_model(load_pretrained(str(tmp_path / "m.safetensors")), model)


# ---- the file appears when it is whole --------------------------------------------


def full(*_, **__):
    raise SafetensorError("Error while serializing: I/O error: No space left on device")


def full_after_half(tensors, path, metadata):
    Path(path).write_bytes(b"half")
    full()


def denied(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


def interrupted(tensors, path, metadata):
    Path(path).write_bytes(b"half")
    raise KeyboardInterrupt


@pytest.mark.parametrize("older", [False, True])
@pytest.mark.parametrize(
    ("where", "failure"),
    [
        ("save_file", full),
        ("save_file", full_after_half),
        ("save_file", denied),
        ("os.replace", denied),
    ],
)
def test_a_full_disk_leaves_what_was_there(
    tmp_path, monkeypatch, where, failure, older
):
    path = tmp_path / "m.safetensors"
    first = make_model()
    if older:
        save_checkpoint(first, path)
    monkeypatch.setattr(f"vitlib.checkpoints.{where}", failure)
    with pytest.raises(OSError, match=r"written \(.*No space left") as told:
        save_checkpoint(make_model(), path)
    assert str(path) in str(told.value)
    monkeypatch.undo()
    assert listed(tmp_path) == ["m.safetensors"] * older
    if older:
        assert_same_model(load_checkpoint(path), first)
    second = make_model()
    save_checkpoint(second, path)
    assert_same_model(load_checkpoint(path), second)


def test_an_interruption_leaves_what_was_there(tmp_path, monkeypatch):
    path, first = tmp_path / "m.safetensors", make_model()
    save_checkpoint(first, path)
    monkeypatch.setattr("vitlib.checkpoints.save_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(make_model(), path)
    assert listed(tmp_path) == ["m.safetensors"]
    assert_same_model(load_checkpoint(path), first)


def test_the_older_file_stays_until_the_new_one_is_whole(tmp_path, monkeypatch):
    path, first, second = tmp_path / "m.safetensors", make_model(), make_model()
    save_checkpoint(first, path)
    seen, replace = [], os.replace

    def look(part, target):
        seen.append(listed(tmp_path))
        assert_same_model(load_checkpoint(path), first)
        assert_same_model(load_checkpoint(part), second)
        replace(part, target)

    monkeypatch.setattr("vitlib.files.os.replace", look)
    save_checkpoint(second, path)
    assert [(len(names), names[-1]) for names in seen] == [(2, "m.safetensors")]
    assert_same_model(load_checkpoint(path), second)


def test_the_same_model_gives_the_same_bytes(tmp_path):
    model = make_model()
    for name in ("a", "b", "c", "d"):
        save_checkpoint(model, tmp_path / f"{name}.safetensors")
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1


def test_a_folder_of_that_name_stays(tmp_path):
    (tmp_path / "m.safetensors").mkdir()
    with pytest.raises(OSError, match=r"could not be written \(.*m\.safetensors"):
        save_checkpoint(make_model(), tmp_path / "m.safetensors")
    assert listed(tmp_path) == ["m.safetensors"]


def test_saving_where_there_is_no_folder(tmp_path):
    path = tmp_path / "none" / "m.safetensors"
    message = f"there is no folder {str(tmp_path / 'none')!r}: make it first"
    with pytest.raises(ValueError, match=exact_match(message)):
        save_checkpoint(make_model(), path)
    assert listed(tmp_path) == []


@pytest.mark.parametrize(
    ("rubbish", "kind"),
    [
        (None, "NoneType"),
        ({}, "dict"),
        (nn.Linear(2, 2), "Linear"),
        (nn.DataParallel(ViT(CONFIG)), "DataParallel"),
        (ViT, "type"),
        (CONFIG, "ViTConfig"),
    ],
)
def test_only_our_models_are_saved(tmp_path, rubbish, kind):
    message = exact_match(f"model is a {kind}: give a vitlib ViT")
    with pytest.raises(TypeError, match=message):
        save_checkpoint(rubbish, tmp_path / "m.safetensors")
    with pytest.raises(TypeError, match=message):
        to_timm(rubbish)
    assert listed(tmp_path) == []


# ---- files that are not what they should be ---------------------------------------


def our_bytes(tmp_path):
    path = tmp_path / "whole.safetensors"
    save_checkpoint(make_model(), path)
    return path.read_bytes()


@pytest.mark.parametrize("keep", [0, 1, 7, 8, 9, 100, -1000, -1])
def test_a_file_cut_short(tmp_path, keep):
    path = tmp_path / "m.safetensors"
    path.write_bytes(our_bytes(tmp_path)[:keep])
    message = (
        re.escape(f"{str(path)!r} is no whole safetensors file (")
        + r".+\): it may be cut short$"
    )
    for load in (load_checkpoint, load_pretrained):
        with pytest.raises(ValueError, match=message):
            load(path)


@pytest.mark.parametrize(
    "content",
    {
        "huge header": (2**60).to_bytes(8, "little") + b"{}",
        "header of 100 MB": (100_000_000).to_bytes(8, "little") + b"{}",
        "zip": b"PK\3\4" + bytes(300),
        "html": b"<!DOCTYPE html><html>404</html>",
        "lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        "zeros": bytes(1000),
        "pickle": pickle.dumps({"a": 1}),
    }.items(),
    ids=lambda item: item[0],
)
def test_a_file_of_another_kind(tmp_path, content):
    path = tmp_path / "m.safetensors"
    path.write_bytes(content[1])
    for load in (load_checkpoint, load_pretrained):
        with pytest.raises(
            ValueError, match=r"m\.safetensors' is no whole safetensors file \("
        ):
            load(path)


def test_a_damaged_header(tmp_path):
    content = our_bytes(tmp_path)
    path = tmp_path / "m.safetensors"
    for old, new in (
        (b'"dtype":"F32"', b'"dtype":"X99"'),
        (b'"shape":[1,1,12]', b'"shape":[1,1,99]'),
        (b'"data_offsets":[0,', b'"data_offsets":[9,'),
        (b'{"__metadata__"', b'["__metadata__"'),
    ):
        assert old in content
        path.write_bytes(content.replace(old, new))
        with pytest.raises(ValueError, match="is no whole safetensors file"):
            load_checkpoint(path)


@pytest.mark.parametrize("name", ["m.safetensors", "m.pt", "m.npz", "m.bin", "m.pth"])
def test_a_file_that_is_not_there(tmp_path, name):
    message = exact_match(f"there is no file {str(tmp_path / name)!r}: check the path")
    for load in (load_checkpoint, load_pretrained):
        with pytest.raises(ValueError, match=message):
            load(tmp_path / name)
    (tmp_path / name).mkdir()
    with pytest.raises(ValueError, match=message):
        load_checkpoint(tmp_path / name)
    (tmp_path / name).rmdir()
    (tmp_path / name).symlink_to(tmp_path / "gone")
    with pytest.raises(ValueError, match=message):
        load_pretrained(tmp_path / name)


def test_a_file_of_someone_else_is_not_ours(tmp_path):
    for metadata in (None, {"format": "pt"}):
        path = tmp_path / "m.safetensors"
        safetensors.torch.save_file(draw_state(CONFIG), path, metadata=metadata)
        message = (
            f"{str(path)!r} holds no vitlib config: load_pretrained reads what other "
            "libraries wrote"
        )
        with pytest.raises(ValueError, match=exact_match(message)):
            load_checkpoint(path)
        assert load_pretrained(path, **TOLD).config == CONFIG


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "Expecting value"),
        ("{", "Expecting property name"),
        ("[1]", "must be a mapping, not list"),
        ("null", "must be a mapping, not NoneType"),
        ('{"size": 3}', "unexpected keyword argument 'size'"),
        ('{"gelu": "relu"}', "gelu is 'relu': give one of"),
        ('{"depth": "3"}', "depth is '3': give a whole number"),
        ('{"depth": 0}', "depth is 0: give a whole number of at least 1"),
        ('{"drop_rate": NaN}', "drop_rate is nan: give a rate"),
        ('{"mlp_ratio": 1e999}', "give a finite number"),
        ('{"image_size": [224]}', "image_size is (224,): give one number or a pair"),
    ],
)
def test_a_config_that_cannot_be_read(tmp_path, text, reason):
    path = tmp_path / "m.safetensors"
    state = draw_state(CONFIG)
    safetensors.torch.save_file(state, path, metadata={"vitlib_config": text})
    message = (
        re.escape(f"{str(path)!r} has a config that this vitlib cannot read (")
        + ".*"
        + re.escape(reason)
        + r".*\)$"
    )
    for load in (load_checkpoint, load_pretrained):
        with pytest.raises(ValueError, match=message):
            load(path)


def save_as_ours(path, state, config=CONFIG):
    text = json.dumps(dataclasses.asdict(config))
    safetensors.torch.save_file(state, path, metadata={"vitlib_config": text})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda s: s.pop("norm.weight"), 'Missing key(s) in state_dict: "norm.weight"'),
        (
            lambda s: s.update(extra=torch.ones(1)),
            'Unexpected key(s) in state_dict: "e',
        ),
        (
            lambda s: s.update({"head.bias": torch.ones(8)}),
            "size mismatch for head.bias: copying a param with shape torch.Size([8])",
        ),
        (
            lambda s: s.update({"head.bias": torch.ones(7, dtype=torch.int32)}),
            "'head.bias' holds torch.int32, no floats",
        ),
    ],
)
def test_tensors_that_do_not_fit_their_config(tmp_path, change, reason):
    state = draw_state(CONFIG)
    change(state)
    path = tmp_path / "m.safetensors"
    save_as_ours(path, state)
    message = f"{str(path)!r} does not fit its config: "
    for load in (load_checkpoint, load_pretrained):
        with pytest.raises(ValueError, match=f"^{re.escape(message)}") as caught:
            load(path)
        assert reason in str(caught.value)


def test_another_config_than_the_tensors(tmp_path):
    path = tmp_path / "m.safetensors"
    config = dataclasses.replace(CONFIG, depth=3)
    save_as_ours(path, draw_state(CONFIG), config)
    with pytest.raises(ValueError, match=r"config: it has 2 blocks, depth is 3$"):
        load_checkpoint(path)


# ---- pickles ----------------------------------------------------------------------


class Trap:
    """What unpickling runs: it would make a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch '{self.path}'",)


def set_trap(kind, folder, trap):
    """Hide a trap among honest tensors, in a file of one kind."""
    state = draw_state(CONFIG)
    path = folder / ("m.npz" if "npz" in kind else "m.pt")
    if kind == "torch zip":
        torch.save(state | {"epoch": trap}, path)
    elif kind == "torch zip, nested":
        torch.save({"model": state, "args": trap}, path)
    elif kind == "torch legacy":
        torch.save(state | {"a": trap}, path, _use_new_zipfile_serialization=False)
    elif kind == "npz":
        arrays = {name: value.numpy() for name, value in state.items()}
        np.savez(path, a=np.array([trap], dtype=object), **arrays)
    else:
        path.write_bytes(pickle.dumps({"a": trap}, protocol=int(kind[-1])))
    return path


PICKLES = ["torch zip", "torch zip, nested", "torch legacy", "plain 1", "plain 2"]
OTHER_PICKLES = ["plain 0", "plain 3", "plain 4", "plain 5", "npz"]


@pytest.mark.parametrize("kind", PICKLES + OTHER_PICKLES)
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_nothing_in_a_pickle_is_run(tmp_path, kind):
    planted = tmp_path / "planted"
    path = set_trap(kind, tmp_path, Trap(planted))
    before = listed(tmp_path)
    with pytest.raises(ValueError, match=re.escape(repr(str(path)))) as caught:
        load_pretrained(path, **TOLD)
    assert listed(tmp_path) == before and not planted.exists()
    if kind in PICKLES:
        message = (
            f"{str(path)!r} is a pickle that asks for {os.system.__module__}.system: "
            f"{TRAINED}"
        )
        assert str(caught.value) == message


@pytest.mark.parametrize("kind", ["torch zip", "torch legacy", "plain 2", "npz"])
def test_the_trap_works(tmp_path, kind):
    """Without it, the test above would prove nothing."""
    planted = tmp_path / "planted"
    path = set_trap(kind, tmp_path, Trap(planted))
    if kind == "npz":
        with np.load(path, allow_pickle=True) as arrays:
            dict(arrays)
    elif kind == "plain 2":
        pickle.loads(path.read_bytes())
    else:
        torch.load(path, weights_only=False)
    assert planted.exists()


def test_a_npz_that_is_a_pickle(tmp_path):
    planted = tmp_path / "planted"
    path = tmp_path / "m.npz"
    path.write_bytes(pickle.dumps(Trap(planted)))
    with pytest.raises(ValueError, match=r"m\.npz' cannot be read: it may be cut sho"):
        load_pretrained(path, **TOLD)
    assert not planted.exists()


@pytest.mark.parametrize("suffix", ["pt", "pth", "bin"])
def test_a_whole_model_is_refused(tmp_path, suffix):
    path = tmp_path / f"m.{suffix}"
    torch.save(make_model(), path)
    message = f"{str(path)!r} is a pickle that asks for vitlib.vit.ViT: {TRAINED}"
    with pytest.raises(ValueError, match=exact_match(message)):
        load_pretrained(path, **TOLD)


def test_what_training_scripts_keep_beside_the_weights(tmp_path):
    path = tmp_path / "m.pt"
    torch.save({"model": draw_state(CONFIG), "args": argparse.Namespace(lr=1)}, path)
    message = f"{str(path)!r} is a pickle that asks for argparse.Namespace: {TRAINED}"
    with pytest.raises(ValueError, match=exact_match(message)):
        load_pretrained(path, **TOLD)


@pytest.mark.parametrize("suffix", ["pt", "pth", "bin"])
@pytest.mark.parametrize("content", [b"", b"x", b"not a pickle at all", b"PK\3\4" * 9])
def test_a_pickle_that_is_none(tmp_path, suffix, content):
    path = tmp_path / f"m.{suffix}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(repr(str(path)))) as caught:
        load_pretrained(path, **TOLD)
    rest = str(caught.value).removeprefix(repr(str(path)))
    assert rest == f" is a pickle that is damaged or no such file: {TRAINED}" or (
        re.fullmatch(
            r" cannot be read \(.*\): it may be cut short, or hold pickled objects; "
            "nothing was loaded",
            rest,
            re.DOTALL,
        )
    )


@pytest.mark.parametrize("suffix", ["pt", "npz"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_an_archive_cut_short(tmp_path, suffix, share):
    path = tmp_path / f"m.{suffix}"
    write_bare(path, draw_state(CONFIG))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    reason = r" \(.*\)" if suffix == "pt" else ""
    message = (
        re.escape(f"{str(path)!r} cannot be read")
        + reason
        + ": it may be cut short, or hold pickled objects; nothing was loaded$"
    )
    with pytest.raises(ValueError, match=f"(?s)^{message}"):
        load_pretrained(path, **TOLD)


@pytest.mark.parametrize("content", [b"", b"PK\5\6" + bytes(18), b"arrays"])
def test_a_npz_that_is_none(tmp_path, content):
    path = tmp_path / "m.npz"
    path.write_bytes(content)
    with pytest.raises((ValueError, TypeError)):
        load_pretrained(path, **TOLD)
    array = tmp_path / "array.npy"
    np.save(array, np.ones(3))
    array.rename(path)
    with pytest.raises(ValueError, match=r"m\.npz' cannot be read: it may be cut"):
        load_pretrained(path, **TOLD)


# ---- what others wrote ------------------------------------------------------------


def write_bare(path, state):
    """Write a state dict the way its suffix says."""
    if path.suffix == ".safetensors":
        tensors = {k: torch.as_tensor(v).contiguous() for k, v in state.items()}
        safetensors.torch.save_file(tensors, path)
    elif path.suffix == ".npz":
        np.savez(path, **{k: torch.as_tensor(v).numpy() for k, v in state.items()})
    else:
        torch.save({k: torch.as_tensor(v) for k, v in state.items()}, path)


def make_foreign(form, **changes):
    """Return this form's state dict and our model of the same numbers."""
    config = config_of(form, **changes)
    ours = draw_state(config)
    return write(form, ours, config), fill(ours, config)


@pytest.mark.parametrize("form", FORM_NAMES)
@pytest.mark.parametrize("suffix", ["safetensors", "pt", "npz"])
def test_a_bare_state_dict(tmp_path, form, suffix):
    theirs, expected = make_foreign(form)
    path = tmp_path / f"m.{suffix}"
    write_bare(path, theirs)
    found = load_pretrained(path, **told_of_form(form))
    assert_same_model(found, expected)
    images = torch.randn(2, 3, 6, 6)
    torch.testing.assert_close(found(images), expected(images), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("suffix", ["pth", "bin"])
@pytest.mark.parametrize("legacy", [False, True])
def test_other_pickled_files(tmp_path, suffix, legacy):
    theirs, expected = make_foreign("timm")
    path = tmp_path / f"m.{suffix}"
    torch.save(theirs, path, _use_new_zipfile_serialization=not legacy)
    assert_same_model(load_pretrained(path, **TOLD), expected)


@pytest.mark.parametrize("name", ["model", "state_dict"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod."])
def test_what_training_scripts_wrap_around_it(tmp_path, name, prefix):
    theirs, expected = make_foreign("torchvision")
    wrapped = {prefix + key: value for key, value in theirs.items()}
    torch.save({"epoch": 3, name: wrapped, "best": 0.5}, tmp_path / "m.pt")
    told = told_of_form("torchvision")
    assert_same_model(load_pretrained(tmp_path / "m.pt", **told), expected)


def test_of_two_state_dicts_the_plain_one():
    theirs, expected = make_foreign("timm")
    other, _ = make_foreign("timm")
    torch.save({"model": other, "state_dict": theirs}, "m.pt")
    assert_same_model(load_pretrained("m.pt", **TOLD), expected)


def test_a_state_dict_under_another_name():
    theirs, _ = make_foreign("timm")
    torch.save({"epoch": 3, "net": theirs}, "m.pt")
    message = (
        "'epoch' holds int, no floats: give the state dict alone; checkpoints often "
        "keep it under 'model' or 'state_dict'"
    )
    with pytest.raises(ValueError, match=exact_match(message)):
        load_pretrained("m.pt", **TOLD)


def test_weights_saved_on_another_device_are_read(monkeypatch):
    theirs, expected = make_foreign("timm")
    torch.save(theirs, "m.pt")
    load, seen = torch.load, {}

    def look(*args, **kwargs):
        seen.update(kwargs)
        return load(*args, **kwargs)

    monkeypatch.setattr(torch, "load", look)
    assert_same_model(load_pretrained("m.pt", **TOLD), expected)
    assert seen == {"map_location": "cpu", "weights_only": True}


def test_what_a_bare_file_does_not_say():
    theirs, _ = make_foreign("timm")
    write_bare(Path("m.safetensors"), theirs)
    message = "a timm state dict does not say num_heads, norm_eps, gelu, pool: look"
    with pytest.raises(ValueError, match=f"^{message}"):
        load_pretrained("m.safetensors")
    with pytest.raises(ValueError, match="does not say norm_eps: look"):
        load_pretrained("m.safetensors", num_heads=4, gelu="erf", pool="cls")


def test_sizes_that_must_be_given_are_passed_on():
    changes = {"patch_size": (2, 3), "image_size": (4, 15), "in_channels": 5}
    theirs, expected = make_foreign("vit-pytorch", **changes)
    write_bare(Path("m.npz"), theirs)
    told = {"num_heads": 4, "patch_size": (2, 3), "image_size": (4, 15)}
    assert_same_model(load_pretrained("m.npz", **told), expected)
    for gone in ("patch_size", "image_size"):
        with pytest.raises(ValueError, match=f"give {gone}="):
            load_pretrained("m.npz", **{k: v for k, v in told.items() if k != gone})


def test_another_resolution_says_how_to_resample():
    theirs, _ = make_foreign("timm")
    write_bare(Path("m.safetensors"), theirs)
    with pytest.raises(
        ValueError,
        match=re.escape(
            "'pos_embed' has 10 rows, learned for a grid of 3x3; config has 5x5: "
            "convert with the file's own image_size, then stretch the converted "
            "pos_embed with resample_pos_embed(pos_embed, 3, (5, 5))"
        ),
    ):
        load_pretrained("m.safetensors", image_size=10, **TOLD)


def test_features_are_refused_from_files_too():
    theirs, _ = make_foreign("timm")
    write_bare(Path("m.safetensors"), theirs | {"dist_token": torch.ones(1)})
    with pytest.raises(ValueError, match="a distillation token"):
        load_pretrained("m.safetensors", **TOLD)


def test_our_file_needs_nothing_else():
    model = make_model(config_of("timm", image_size=(6, 8)))
    save_checkpoint(model, "m.safetensors")
    said = {
        "num_heads": 4, "norm_eps": 1e-6, "gelu": "erf", "pool": "cls",
        "image_size": (6, 8), "patch_size": (2, 2),
    }  # fmt: skip
    for told in ({}, said, {"patch_size": 2, "image_size": [6, 8]}):
        assert_same_model(load_pretrained("m.safetensors", **told), model)


@pytest.mark.parametrize(
    ("told", "has"),
    [
        ({"num_heads": 3}, 4),
        ({"norm_eps": 1e-5}, 1e-6),
        ({"gelu": "tanh"}, "erf"),
        ({"pool": "mean"}, "cls"),
        ({"image_size": 8}, 6),
        ({"image_size": (6, 8)}, 6),
        ({"patch_size": 3}, 2),
    ],
)
def test_our_file_is_not_contradicted(told, has):
    save_checkpoint(make_model(), "m.safetensors")
    ((name, value),) = told.items()
    message = (
        f"'m.safetensors' comes with {name}={has!r}, {name}={value!r} was given: leave "
        "it out"
    )
    with pytest.raises(ValueError, match=exact_match(message)):
        load_pretrained("m.safetensors", **told)


def test_sizes_that_are_none_are_no_contradiction():
    save_checkpoint(make_model(), "m.safetensors")
    for name, value, error in (
        ("image_size", "6", TypeError),
        ("image_size", (6, 0), ValueError),
        ("patch_size", 2.0, TypeError),
    ):
        with pytest.raises(error, match=rf"^{name} is .*: give a whole number"):
            load_pretrained("m.safetensors", **{name: value})


# ---- folders ----------------------------------------------------------------------

PHOTOS = {
    "size": {"height": 6, "width": 6}, "resample": 2, "image_mean": [0.1, 0.2, 0.3],
    "image_std": [0.4, 0.5, 0.6],
}  # fmt: skip


def make_folder(folder, form="transformers, files", config=None, **changes):
    """Save a model as transformers or timm would; return ours of equal numbers."""
    theirs, expected = make_foreign(form, **changes)
    if config is None:
        config = {"model_type": "vit", "num_attention_heads": 4, "image_size": 6}
    (folder / "config.json").write_text(json.dumps(config))
    write_bare(folder / "model.safetensors", theirs)
    return expected


@pytest.mark.parametrize("form", ["transformers", "transformers, files"])
def test_a_transformers_folder(tmp_path, form):
    expected = make_folder(tmp_path, form)
    assert_same_model(load_pretrained(tmp_path), expected)
    assert_same_model(load_pretrained("."), expected)
    assert_same_model(load_pretrained(tmp_path, num_heads=4, gelu="erf"), expected)
    for told, has in (({"num_heads": 3}, 4), ({"norm_eps": 1e-6}, 1e-12)):
        ((name, value),) = told.items()
        message = (
            f"{str(tmp_path / 'model.safetensors')!r} comes with {name}={has!r}, "
            f"{name}={value!r} was given: leave it out"
        )
        with pytest.raises(ValueError, match=exact_match(message)):
            load_pretrained(tmp_path, **told)


def test_what_config_json_says_is_built(tmp_path):
    said = {
        "model_type": "vit", "num_attention_heads": 6, "layer_norm_eps": 1e-4,
        "hidden_act": "gelu_new", "image_size": [4, 10],
    }  # fmt: skip
    changes = {
        "num_heads": 6, "norm_eps": 1e-4, "gelu": "tanh", "image_size": (4, 10),
    }  # fmt: skip
    expected = make_folder(tmp_path, config=said, **changes)
    assert_same_model(load_pretrained(tmp_path), expected)


@pytest.mark.parametrize("pool", ["cls", "mean", "mean_all"])
def test_a_timm_folder(tmp_path, pool):
    config = {"architecture": "vit_tiny_patch16_224", "model_args": {"num_heads": 4}}
    config["global_pool"] = "token" if pool == "cls" else "avg"
    config["model_args"]["pool_include_prefix"] = pool == "mean_all"
    form = "timm" if pool == "cls" else "timm, pooled"
    expected = make_folder(tmp_path, form, config, pool=pool)
    assert_same_model(load_pretrained(tmp_path), expected)
    del config["model_args"]
    expected = make_folder(tmp_path, form, config, pool=pool, num_heads=3)
    if pool != "mean_all":
        assert_same_model(load_pretrained(tmp_path), expected)


def test_folders_that_lack_something(tmp_path):
    with pytest.raises(ValueError, match=r"has no config\.json: give the weights file"):
        load_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    message = (
        f"{str(tmp_path)!r} has no model.safetensors: check that the whole folder was "
        "copied"
    )
    with pytest.raises(ValueError, match=exact_match(message)):
        load_pretrained(tmp_path)
    for name in ("model-00001-of-00002.safetensors", "model.safetensors.index.json"):
        (tmp_path / name).write_text("{}")
    message = (
        f"{str(tmp_path)!r} has no model.safetensors: its weights are in several "
        "files; save them as one"
    )
    with pytest.raises(ValueError, match=exact_match(message)):
        load_pretrained(tmp_path)


def test_an_older_folder(tmp_path):
    """Transformers wrote pytorch_model.bin once; safetensors come first."""
    expected = make_folder(tmp_path)
    older = tmp_path / "pytorch_model.bin"
    state = safetensors.torch.load_file(tmp_path / "model.safetensors")
    torch.save({name: torch.zeros(3) for name in state}, older)
    assert_same_model(load_pretrained(tmp_path), expected)
    torch.save(state, older)
    (tmp_path / "model.safetensors").unlink()
    assert_same_model(load_pretrained(tmp_path), expected)
    torch.save(state | {"a": Trap(tmp_path / "planted")}, older)
    with pytest.raises(ValueError, match=r"pytorch_model\.bin' is a pickle that asks"):
        load_pretrained(tmp_path)
    assert not (tmp_path / "planted").exists()


def test_a_folder_whose_weights_are_cut_short(tmp_path):
    make_folder(tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-9])
    message = (
        re.escape(f"{str(path)!r} cannot be read (")
        + r".+\): it may be cut short, or hold pickled objects; nothing was loaded$"
    )
    with pytest.raises(ValueError, match=message):
        load_pretrained(tmp_path)


# ---- photos -----------------------------------------------------------------------


def test_how_a_folder_wants_its_photos(tmp_path):
    model = make_folder(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(PHOTOS))
    rules = load_preprocessing(tmp_path)
    assert rules == {
        "image_size": 6,
        "resize": "squash",
        "crop_fraction": 1.0,
        "interpolation": "bilinear",
        "mean": (0.1, 0.2, 0.3),
        "std": (0.4, 0.5, 0.6),
    }
    assert rules == load_preprocessing(str(tmp_path))
    pixels = np.random.default_rng(0).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    image = preprocess(Image.fromarray(pixels), **rules)
    expected = (pixels / 255 - [0.1, 0.2, 0.3]) / [0.4, 0.5, 0.6]
    expected = torch.from_numpy(expected).permute(2, 0, 1)[None].float()
    torch.testing.assert_close(image, expected)
    found = load_pretrained(tmp_path)(image)
    torch.testing.assert_close(found, model(image), rtol=1e-5, atol=1e-5)


def test_a_file_does_not_say_how_photos_are_prepared():
    save_checkpoint(make_model(), "m.safetensors")
    message = (
        "'m.safetensors' is a file: how photos are prepared stands in the JSON files "
        "of a folder; else take vitlib.predict.PREPROCESSING of the source"
    )
    with pytest.raises(ValueError, match=exact_match(message)):
        load_preprocessing("m.safetensors")


def test_a_folder_that_says_nothing_of_photos(tmp_path):
    make_folder(tmp_path)
    with pytest.raises(ValueError, match=r"has no preprocessor_config\.json$"):
        load_preprocessing(tmp_path)


# ---- the hub ----------------------------------------------------------------------


@pytest.fixture
def hub(monkeypatch):
    """Return a function that puts a hub's client in place."""

    def put(download):
        module = types.ModuleType("huggingface_hub")
        module.snapshot_download = download
        monkeypatch.setitem(sys.modules, "huggingface_hub", module)

    return put


@pytest.mark.parametrize("name", ["owner/name", "o-w.n_er/na.me-16"])
def test_a_hub_name(tmp_path, hub, name):
    folder = tmp_path / "cache"
    folder.mkdir()
    expected = make_folder(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PHOTOS))
    asked = []

    def download(name, *, allow_patterns):
        asked.append((name, allow_patterns))
        return str(folder)

    hub(download)
    assert_same_model(load_pretrained(name), expected)
    assert load_preprocessing(name)["interpolation"] == "bilinear"
    # No pickle is fetched.
    assert asked == [(name, ["*.json", "*.safetensors"])] * 2
    with pytest.raises(ValueError, match=r"num_heads=3 was given: leave it out$"):
        load_pretrained(name, num_heads=3)


def test_a_folder_here_comes_before_the_hub(tmp_path, hub):
    def download(*_, **__):
        pytest.fail("the hub was asked")

    hub(download)
    folder = tmp_path / "owner" / "name"
    folder.mkdir(parents=True)
    expected = make_folder(folder)
    assert_same_model(load_pretrained("owner/name"), expected)


@pytest.mark.parametrize("load", [load_pretrained, load_preprocessing])
def test_without_the_hubs_client(monkeypatch, load):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    message = (
        "'owner/name' is no file or folder here; to fetch it from the Hugging Face "
        "hub: pip install huggingface_hub"
    )
    with pytest.raises(ImportError, match=exact_match(message)):
        load("owner/name")


class OfflineError(Exception):
    """What a network library might raise."""


@pytest.mark.parametrize("load", [load_pretrained, load_preprocessing])
@pytest.mark.parametrize(
    "error", [OfflineError("no network"), OSError("disk"), ValueError("name")]
)
def test_a_hub_that_does_not_answer(hub, load, error):
    def download(*_, **__):
        raise error

    hub(download)
    message = (
        "'owner/name' is no file or folder here, and could not be fetched from the "
        f"Hugging Face hub ({type(error).__name__}: {error}): check the name and the "
        "network, or copy its folder here and give the path"
    )
    with pytest.raises(ValueError, match=exact_match(message)) as caught:
        load("owner/name")
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("load", [load_pretrained, load_preprocessing])
@pytest.mark.parametrize(
    "name", ["name", "a/b/c", "owner/", "/name", "own er/name", "owner/na\nme", "a\\b"]
)
def test_names_that_are_none(hub, load, name):
    hub(lambda *_, **__: pytest.fail("the hub was asked"))
    message = (
        f"{name!r} is no file, no folder, no hub name (owner/name) and none of the "
        "models that ship (cifar10_vit, fashion_mnist_vit): check it"
    )
    with pytest.raises(ValueError, match=exact_match(message)):
        load(name)


@pytest.mark.parametrize("load", [load_pretrained, load_preprocessing])
@pytest.mark.parametrize("name", ["m.ckpt", "m", "m.h5", "m.npy"])
def test_files_of_another_suffix(tmp_path, load, name):
    (tmp_path / name).write_bytes(b"x")
    message = f"{name!r} is none of .safetensors, .pth, .pt, .bin, .npz and no folder"
    with pytest.raises(ValueError, match=exact_match(message)):
        load(name)


@pytest.mark.parametrize("rubbish", [None, 3, b"owner/name", ["m.pt"], ViT(CONFIG)])
def test_paths_that_are_none(rubbish):
    kind = type(rubbish).__name__
    message = exact_match(f"name_or_path is a {kind}: give a path or a hub name")
    for load in (load_pretrained, load_preprocessing):
        with pytest.raises(TypeError, match=message):
            load(rubbish)
    message = exact_match(f"path is a {kind}: give a file's path")
    with pytest.raises(TypeError, match=message):
        load_checkpoint(rubbish)


# ---- back to timm -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "last"),
    [
        ({}, "norm"),
        ({"head_dim": 3}, "norm"),
        ({"pool": "mean"}, "fc_norm"),
        ({"pool": "mean_all"}, "fc_norm"),
        ({"pool": "mean", "class_token": False}, "fc_norm"),
        ({"patch_norm": "after", "qkv_bias": False}, "norm"),
    ],
)
def test_the_names_that_timm_expects(changes, last):
    model = make_model(config_of("timm", **changes))
    found = to_timm(model)
    ours = model.state_dict()
    expected = {
        name.replace("norm.", f"{last}.") if name.startswith("norm.") else name: value
        for name, value in ours.items()
    }
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert torch.equal(found[name], value)
        assert found[name].data_ptr() == value.data_ptr()
    assert not any(value.requires_grad for value in found.values())
    back = convert_state_dict(found, "timm", model.config)
    assert all(torch.equal(back[name], value) for name, value in ours.items())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patch_norm": True}, "timm has no norm on raw patches (patch_norm=True)"),
        (
            {"head_dim": 5},
            "timm's heads have embed_dim / num_heads = 12/4 values, not head_dim 5",
        ),
        (
            {"num_heads": 5, "head_dim": 2},
            "timm's heads have embed_dim / num_heads = 12/5 values, not head_dim 2",
        ),
    ],
)
def test_what_timm_has_not(changes, message):
    model = make_model(config_of("timm", **changes))
    with pytest.raises(ValueError, match=exact_match(message)):
        to_timm(model)


def test_the_modules_functions():
    assert set(checkpoints.__all__) == {
        "convert_state_dict", "detect_source", "infer_config", "load_checkpoint",
        "load_preprocessing", "load_pretrained", "save_checkpoint", "to_timm",
    }  # fmt: skip
    assert all(callable(getattr(checkpoints, name)) for name in checkpoints.__all__)
    assert source_of("timm, pooled") == "timm"


# ---- what once went wrong ---------------------------------------------------------


@pytest.mark.parametrize("name", ["m", "m.pt", "m.ckpt", "m.npz", "m.SAFETENSORS"])
def test_our_files_have_one_suffix(tmp_path, name):
    message = f"path is {name!r}: give a name ending in .safetensors"
    with pytest.raises(ValueError, match=exact_match(message)):
        save_checkpoint(make_model(), name)
    assert listed(tmp_path) == []


@pytest.mark.parametrize("name", ["m", "m.pt", "m.npz"])
def test_our_file_under_another_name(name):
    model = make_model()
    save_checkpoint(model, "m.safetensors")
    os.rename("m.safetensors", name)
    assert_same_model(load_checkpoint(name), model)


def test_a_ratio_that_json_does_not_know():
    model = make_model(dataclasses.replace(CONFIG, mlp_ratio=Fraction(5, 3)))
    save_checkpoint(model, "m.safetensors")
    assert load_checkpoint("m.safetensors").config.mlp_ratio == 5 / 3


@pytest.mark.parametrize("kind", OTHER_PICKLES)
def test_any_pickle_is_called_one(tmp_path, kind):
    path = set_trap(kind, tmp_path, Trap(tmp_path / "planted"))
    with pytest.raises(ValueError, match=r"is a pickle|pickled objects"):
        load_pretrained(path, **TOLD)


@pytest.mark.parametrize("load", [load_checkpoint, load_pretrained, load_preprocessing])
def test_a_name_longer_than_a_file_name_may_be(load):
    with pytest.raises(ValueError, match="a" * 100):
        load("a" * 300)


@pytest.mark.parametrize("path", ["", None, 3, b"m.safetensors"])
def test_nowhere_to_save(path):
    with pytest.raises((ValueError, TypeError), match=r"^path is "):
        save_checkpoint(make_model(), path)


def test_parameters_that_are_one(tmp_path):
    model = make_model()
    model.norm.weight = model.blocks[0].norm1.weight
    save_checkpoint(model, tmp_path / "m.safetensors")
    assert_same_model(load_checkpoint(tmp_path / "m.safetensors"), model)


def test_a_model_without_numbers():
    with torch.device("meta"):
        model = ViT(CONFIG)
    with pytest.raises(ValueError, match="meta"):
        save_checkpoint(model, "m.safetensors")


def test_sizes_that_came_from_numpy():
    config = dataclasses.replace(CONFIG, embed_dim=np.int64(12), depth=np.int32(2))
    model = make_model(config)
    save_checkpoint(model, "m.safetensors")
    assert_same_model(load_checkpoint("m.safetensors"), model)


def test_a_config_nested_too_deep():
    metadata = {"vitlib_config": "[" * 100_000}
    safetensors.torch.save_file(draw_state(CONFIG), "m.safetensors", metadata=metadata)
    with pytest.raises(ValueError, match="a config that this vitlib cannot read"):
        load_checkpoint("m.safetensors")


def test_complex_numbers_are_no_weights():
    state = {name: v.to(torch.complex64) for name, v in draw_state(CONFIG).items()}
    save_as_ours("m.safetensors", state)
    with pytest.raises(ValueError, match="complex"):
        load_checkpoint("m.safetensors")


def test_a_config_that_leaves_something_out():
    said = dataclasses.asdict(dataclasses.replace(CONFIG, gelu="tanh"))
    del said["gelu"]
    metadata = {"vitlib_config": json.dumps(said)}
    safetensors.torch.save_file(draw_state(CONFIG), "m.safetensors", metadata=metadata)
    with pytest.raises(ValueError, match="gelu"):
        load_checkpoint("m.safetensors")


@pytest.mark.parametrize(
    "content", [{}, [1], torch.ones(2), {1: torch.ones(2)}, {"model": {}}, None]
)
def test_a_file_without_a_state_dict(content):
    torch.save(content, "m.pt")
    with pytest.raises(ValueError, match=r"m\.pt"):
        load_pretrained("m.pt", **TOLD)


@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
def test_a_file_without_tensors(suffix):
    write_bare(Path(f"m.{suffix}"), {})
    with pytest.raises(ValueError, match=rf"m\.{suffix}"):
        load_pretrained(f"m.{suffix}", **TOLD)


def test_a_file_that_cannot_be_read_is_closed():
    write_bare(Path("m.npz"), draw_state(CONFIG))
    Path("m.npz").write_bytes(Path("m.npz").read_bytes()[:-100])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(ValueError, match=r"m\.npz' cannot be read"):
            load_pretrained("m.npz", **TOLD)
        gc.collect()
    assert not caught


def test_wrapped_in_two_dictionaries():
    theirs, expected = make_foreign("timm")
    torch.save({"model": {"state_dict": theirs, "epoch": 3}}, "m.pt")
    assert_same_model(load_pretrained("m.pt", **TOLD), expected)


def test_a_path_is_no_hub_name(hub):
    hub(lambda *_, **__: pytest.fail("the hub was asked"))
    with pytest.raises(ValueError, match="is no file"):
        load_pretrained("../model")


@pytest.mark.parametrize(
    "changes",
    [
        {"embed_dim": 2**31 - 1, "num_heads": 1, "mlp_ratio": 1},
        {"image_size": 2**31 - 2, "patch_size": 1},
        {"head_dim": 2**31 - 1, "num_heads": 2**31 - 1},
    ],
)
def test_a_config_of_impossible_sizes(changes):
    config = dataclasses.replace(CONFIG, **changes)
    save_as_ours("m.safetensors", draw_state(CONFIG), config)
    with pytest.raises(ValueError, match=r"^'m\.safetensors' does not fit its config"):
        load_checkpoint("m.safetensors")


def test_a_config_of_a_billion_blocks_is_refused_before_they_are_built(monkeypatch):
    config = dataclasses.replace(CONFIG, depth=10**9)
    save_as_ours("m.safetensors", draw_state(CONFIG), config)
    monkeypatch.setattr(checkpoints, "ViT", lambda _: pytest.fail("it was built"))
    with pytest.raises(ValueError, match="does not fit its config"):
        load_checkpoint("m.safetensors")


def test_a_misfit_is_told_in_few_words():
    """Three blocks for two and other sizes: not one line for every tensor."""
    config = dataclasses.replace(CONFIG, depth=9, embed_dim=16)
    save_as_ours("m.safetensors", draw_state(CONFIG), config)
    with pytest.raises(ValueError, match="does not fit its config") as caught:
        load_checkpoint("m.safetensors")
    assert len(str(caught.value)) < 500
