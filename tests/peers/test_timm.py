"""timm's VisionTransformer: there, refused where ours differs, and back."""

import dataclasses
import json
import socket

import pytest
import timm
import torch
from agreement import (
    TOLERANCE,
    assert_agree,
    assert_differ,
    assert_norms_and_gelus,
    class_position_last,
    colour_last,
    columns_before_rows,
    draw_images,
    fill,
    gap,
    heads_out_of_order,
    patches_on_their_side,
    qkv_rows_as,
    redraw,
    swap_norms,
    swap_q_and_k,
    transposed,
    without_qkv_bias,
)
from safetensors.torch import save_file
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from vitlib import ViT, ViTConfig
from vitlib.checkpoints import load_pretrained, to_timm
from vitlib.convert import convert_state_dict, detect_source, infer_config

# 4 x 5 = 20 patches of 3*2*3 = 18 values, e = 24, d = 8, hidden 36.
TINY = ViTConfig(
    image_size=(8, 15),
    patch_size=(2, 3),
    num_classes=5,
    embed_dim=24,
    depth=2,
    num_heads=3,
    mlp_ratio=1.5,
)
SQUARE = dataclasses.replace(
    TINY, image_size=12, patch_size=3, mlp_ratio=1.0, num_classes=24
)
# Our config, and what timm needs beside the sizes to build the same model.
CASES = {
    "cls": ({}, {}),
    "mean": ({"pool": "mean"}, {"global_pool": "avg"}),
    "mean_all": (
        {"pool": "mean_all"},
        {"global_pool": "avg", "pool_include_prefix": True},
    ),
    "cls, normed after pooling": ({}, {"fc_norm": True}),
    "no class token": (
        {"pool": "mean", "class_token": False},
        {"global_pool": "avg", "class_token": False},
    ),
    "no qkv bias": ({"qkv_bias": False}, {"qkv_bias": False}),
    "norm on patches": (
        {"patch_norm": "after"},
        {"embed_norm_layer": timm.layers.LayerNorm},
    ),
    "tanh": ({"gelu": "tanh"}, {"act_layer": "gelu_tanh"}),
    "eps 1e-5": ({"norm_eps": 1e-5}, {"norm_layer": nn.LayerNorm}),
    "one head": ({"num_heads": 1}, {}),
    "one colour": ({"in_channels": 1}, {}),
    "one class": ({"num_classes": 1}, {}),
    "eleven blocks": ({"depth": 11}, {}),
    "square": (
        {"image_size": 12, "patch_size": 3, "mlp_ratio": 1.0, "num_classes": 24},
        {},
    ),
    "384": ({"image_size": 384, "patch_size": 16, "depth": 1}, {}),
}


def timm_model(config, kind=VisionTransformer, **choices):
    return kind(
        img_size=config.image_size,
        patch_size=config.patch_size,
        in_chans=config.in_channels,
        num_classes=config.num_classes,
        embed_dim=config.embed_dim,
        depth=config.depth,
        num_heads=config.num_heads,
        mlp_ratio=config.mlp_ratio,
        **choices,
    )


@pytest.fixture
def peer(jitter):
    """Build timm's model of a config, and its logits for two images."""

    def build(config, dtype=torch.float32, **choices):
        model = jitter(timm_model(config, **choices), 0.2).eval().to(dtype)
        images = draw_images(config, dtype)
        with torch.no_grad():
            return model, images, model(images)

    return build


# What the shapes of a timm model do not say.
def unsaid(config):
    said = {name: getattr(config, name) for name in ("num_heads", "norm_eps", "gelu")}
    said["pool"] = config.pool
    if not isinstance(config.image_size, int):
        said["image_size"] = config.image_size
    return said


# ---- equal logits -----------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_logits_are_equal(peer, name, dtype):
    fields, choices = CASES[name]
    config = dataclasses.replace(TINY, **fields)
    model, images, logits = peer(config, dtype, **choices)
    state = model.state_dict()
    assert detect_source(state) == "timm"
    assert infer_config(state, "timm", **unsaid(config)) == config
    assert_agree(logits, convert_state_dict(state, "timm", config), config, images)
    assert_norms_and_gelus(model, config, {timm.layers.GELUTanh: "tanh"})


@pytest.mark.parametrize(
    ("name", "size"), [("vit_base_patch16_224", 224), ("vit_base_patch16_384", 384)]
)
def test_the_real_vit_b(name, size):
    depth = 12 if size == 224 else 1
    with torch.device("meta"):
        model = timm.create_model(name, depth=depth)
    redraw(model)
    config = ViTConfig(image_size=size, depth=depth)
    images = draw_images(config)
    state = model.state_dict()
    assert infer_config(state, "timm", **unsaid(config)) == config
    with torch.no_grad():
        logits = model(images)
    assert_agree(logits, convert_state_dict(state, "timm", config), config, images)
    assert_norms_and_gelus(model, config)


def test_the_fused_path_gives_the_same(peer):
    model, images, logits = peer(TINY)
    fused = dataclasses.replace(TINY, fused=True)
    assert_agree(
        logits, convert_state_dict(model.state_dict(), "timm", fused), fused, images
    )


@pytest.mark.parametrize("num_heads", [5, 100])
def test_heads_that_do_not_divide_the_rows_are_refused(num_heads):
    state = timm_model(TINY).state_dict()
    with pytest.raises(ValueError, match="num_heads"):
        infer_config(state, "timm", **{**unsaid(TINY), "num_heads": num_heads})


def test_the_sizes_do_not_say_everything(peer):
    state = peer(TINY)[0].state_dict()
    for left_out in ("num_heads", "norm_eps", "gelu", "pool", "image_size"):
        said = {name: value for name, value in unsaid(TINY).items() if name != left_out}
        with pytest.raises(ValueError, match=left_out):
            infer_config(state, "timm", **said)
    with pytest.raises(ValueError, match=r"num_heads.*norm_eps.*gelu.*pool"):
        infer_config(state, "timm", image_size=(8, 15))


# ---- nearly right -----------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        swap_q_and_k,
        qkv_rows_as("(h three d)"),
        qkv_rows_as("(h d three)"),
        qkv_rows_as("(three d h)"),
        heads_out_of_order,
        colour_last,
        patches_on_their_side,
        columns_before_rows,
        class_position_last,
        swap_norms,
        without_qkv_bias,
        transposed("attn.proj"),
        transposed("mlp.fc1"),
        transposed("head"),
    ],
    ids=lambda wrong: wrong.__name__,
)
def test_nearly_right_conversions_are_found_out(peer, wrong):
    model, images, logits = peer(SQUARE)
    converted = convert_state_dict(model.state_dict(), "timm", SQUARE)
    assert_agree(logits, converted, SQUARE, images)
    assert_differ(logits, wrong(converted, SQUARE), SQUARE, images)


@pytest.mark.parametrize(
    ("field", "value", "at_least"),
    [
        ("num_heads", 4, 1e-2),
        ("pool", "mean", 1e-2),
        ("pool", "mean_all", 1e-2),
        ("gelu", "tanh", 1e-5),
        ("norm_eps", 1e-5, 1e-8),
        ("norm_eps", 1e-12, 1e-8),
    ],
)
def test_a_wrong_choice_is_found_out_in_double_precision(peer, field, value, at_least):
    model, images, logits = peer(TINY, torch.float64)
    converted = convert_state_dict(model.state_dict(), "timm", TINY)
    other = dataclasses.replace(TINY, **{field: value})
    assert at_least >= 100 * TOLERANCE[torch.float64]
    assert_differ(logits, converted, other, images, at_least)


def test_normalising_before_the_mean_is_another_model(peer):
    config = dataclasses.replace(TINY, pool="mean")
    model, images, logits = peer(config, global_pool="avg")
    converted = convert_state_dict(model.state_dict(), "timm", config)
    model = fill(converted, config)
    seen = []
    model.norm.register_forward_pre_hook(lambda _, tokens: seen.append(tokens[0]))
    with torch.no_grad():
        assert gap(logits, model(images)) <= 1e-5
        assert seen[0].shape == (2, 24)  # pooled, and only then normed
        model.norm, norm = nn.Identity(), model.norm
        hook = model.blocks[-1].register_forward_hook(lambda _, __, out: norm(out))
        assert gap(logits, model(images)) >= 0.1
        hook.remove()


# ---- refused, with the way out where there is one ---------------------------------

REFUSED = {
    "distilled": (
        {"kind": VisionTransformerDistilled},
        r"dist_token|head_dist.*distillation token",
    ),
    "registers": ({"reg_tokens": 2}, r"reg_token.*register tokens"),
    "qk-norm": ({"qk_norm": True}, r"qk-norm"),
    "LayerScale": ({"init_values": 0.1}, r"LayerScale.*attn\.proj and mlp\.fc2"),
    "norm before the blocks": ({"pre_norm": True}, r"norm_pre.*norm before the first"),
    "no position for cls": ({"no_embed_class": True}, r"row of zeros|position scheme"),
    "no positions": ({"pos_embed": "none"}, r"pos_embed.*position scheme"),
    "attention pooling": ({"global_pool": "map"}, r"attn_pool"),
    "no last norm": ({"final_norm": False}, r"norm\.weight"),
    "no biases": ({"proj_bias": False}, r"bias"),
    "norm inside attention": ({"scale_attn_norm": True}, r"attn\.norm"),
    "norm inside the MLP": ({"scale_mlp_norm": True}, r"mlp\.norm"),
    "gated MLP": ({"mlp_layer": timm.layers.GluMlp}, r"mlp\.fc"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_ours_cannot_express_is_refused(name):
    choices, text = REFUSED[name]
    state = timm_model(TINY, **choices).state_dict()
    with pytest.raises(ValueError, match=text):
        convert_state_dict(state, "timm", TINY)


@pytest.mark.parametrize("name", ["distilled", "registers", "qk-norm", "LayerScale"])
def test_it_is_refused_before_anything_is_asked_for(tmp_path, name):
    choices, text = REFUSED[name]
    state = timm_model(TINY, **choices).state_dict()
    with pytest.raises(ValueError, match=text):
        detect_source(state)
    with pytest.raises(ValueError, match=text):
        infer_config(state, "timm")
    torch.save(state, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=text):
        load_pretrained(tmp_path / "weights.pth")


def test_a_model_without_a_head_is_refused():
    state = timm_model(dataclasses.replace(TINY, num_classes=1)).state_dict()
    del state["head.weight"], state["head.bias"]
    with pytest.raises(ValueError, match=r"head\.weight"):
        infer_config(state, "timm", **unsaid(TINY))
    with pytest.raises(ValueError, match=r"head\.weight"):
        convert_state_dict(state, "timm", TINY)


def test_a_hybrid_stem_is_refused():
    with torch.device("meta"):
        model = timm.create_model("vit_tiny_r_s16_p8_224")
    with pytest.raises(ValueError, match=r"convolutional stem"):
        convert_state_dict(model.state_dict(), "timm", ViTConfig())


@pytest.mark.parametrize("class_token", [True, False])
def test_a_norm_before_the_mean_is_refused(peer, class_token):
    config = dataclasses.replace(TINY, pool="mean", class_token=class_token)
    model, images, logits = peer(
        config, global_pool="avg", fc_norm=False, class_token=class_token
    )
    state = model.state_dict()
    for pool in ("mean", "mean_all"):
        other = dataclasses.replace(config, pool=pool)
        with pytest.raises(ValueError, match="norm before mean"):
            infer_config(state, "timm", **unsaid(other))
        with pytest.raises(ValueError, match="norm before mean"):
            convert_state_dict(state, "timm", other)
    # What taking it all the same would cost.
    assert_differ(logits, state, config, images)


def test_layer_scale_folds_into_the_two_last_layers(peer):
    model, images, logits = peer(TINY, init_values=0.5)
    state = model.state_dict()
    for i in range(TINY.depth):
        block = f"blocks.{i}"
        for gamma, layer in (("ls1", "attn.proj"), ("ls2", "mlp.fc2")):
            scale = state.pop(f"{block}.{gamma}.gamma")
            state[f"{block}.{layer}.weight"] *= scale[:, None]
            state[f"{block}.{layer}.bias"] *= scale
    assert_agree(logits, convert_state_dict(state, "timm", TINY), TINY, images)


def test_a_row_of_zeros_gives_the_class_token_its_position(peer):
    model, images, logits = peer(TINY, no_embed_class=True)
    state = model.state_dict()
    assert state["pos_embed"].shape == (1, 20, 24)
    said = unsaid(TINY)
    with pytest.raises(ValueError, match="row of zeros"):
        convert_state_dict(state, "timm", infer_config(state, "timm", **said))
    state["pos_embed"] = torch.cat([torch.zeros(1, 1, 24), state["pos_embed"]], dim=1)
    assert_agree(logits, convert_state_dict(state, "timm", TINY), TINY, images)


def test_another_resolution_is_refused_with_the_way_out():
    small = dataclasses.replace(TINY, image_size=12, patch_size=3)
    state = timm_model(small).state_dict()
    large = dataclasses.replace(small, image_size=15)
    with pytest.raises(ValueError, match=r"4x4.*5x5.*resample_pos_embed"):
        convert_state_dict(state, "timm", large)


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        ("depth", 3, "depth"),
        ("embed_dim", 48, r"\(1, 1, 24\)|cls_token"),
        ("qkv_bias", False, r"attn\.qkv\.bias"),
        ("class_token", False, "cls_token|pos_embed"),
        ("num_classes", 6, r"head"),
        ("in_channels", 1, r"patch_embed\.proj\.weight"),
        ("mlp_ratio", 2.0, r"mlp\.fc1"),
        ("patch_norm", "after", r"patch_embed\.norm"),
        ("patch_norm", True, "patch_norm"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(field, value, text):
    averaged = field == "class_token"
    choices = {"global_pool": "avg"} if averaged else {}
    state = timm_model(TINY, **choices).state_dict()
    pool = "mean" if averaged else "cls"
    config = dataclasses.replace(TINY, **{field: value}, pool=pool)
    with pytest.raises(ValueError, match=text):
        convert_state_dict(state, "timm", config)


# ---- and back ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", [name for name in CASES if name != "cls, normed after pooling"]
)
def test_timm_loads_ours(jitter, name, dtype):
    fields, choices = CASES[name]
    config = dataclasses.replace(TINY, **fields)
    model = jitter(ViT(config), 0.2).eval().to(dtype)
    theirs = timm_model(config, **choices).eval().to(dtype)
    theirs.load_state_dict(to_timm(model), strict=True)
    images = draw_images(config, dtype)
    with torch.no_grad():
        assert gap(theirs(images), model(images)) <= TOLERANCE[dtype]
    back = convert_state_dict(theirs.state_dict(), "timm", config)
    assert back.keys() == model.state_dict().keys()
    for key, value in model.state_dict().items():
        assert torch.equal(back[key], value)


@pytest.mark.parametrize(("field", "value"), [("head_dim", 16), ("patch_norm", True)])
def test_what_timm_cannot_express_is_refused(field, value):
    with pytest.raises(ValueError, match=field):
        to_timm(ViT(dataclasses.replace(TINY, **{field: value})))


# ---- files and folders ------------------------------------------------------------

SMALL = {"img_size": 32, "embed_dim": 48, "depth": 2, "num_classes": 7}


def save_folder(folder, jitter, safe=True, **choices):
    # Not given, the heads of the architecture stay: three.
    sizes = {**SMALL, **choices}
    model = timm.create_model("vit_tiny_patch16_224", **sizes)
    jitter(model, 0.15).eval()
    timm.models.save_for_hf(model, folder, safe_serialization=safe)
    size = sizes["img_size"]
    images = torch.randn(2, 3, *((size, size) if isinstance(size, int) else size))
    with torch.no_grad():
        return images, model(images)


@pytest.mark.parametrize(
    ("pool", "choices"),
    [
        ("cls", {}),
        ("mean", {"global_pool": "avg"}),
        ("mean", {"global_pool": "avg", "class_token": False}),
        ("cls", {"qkv_bias": False}),
        ("cls", {"num_heads": 6}),
        ("cls", {"mlp_ratio": 2.5}),
    ],
)
def test_a_folder_of_save_for_hf_is_loaded(tmp_path, jitter, pool, choices):
    images, logits = save_folder(tmp_path / "vit", jitter, **choices)
    model = load_pretrained(tmp_path / "vit")
    assert model.config == ViTConfig(
        image_size=32, embed_dim=48, depth=2, num_classes=7, pool=pool,
        num_heads=choices.get("num_heads", 3),
        mlp_ratio=choices.get("mlp_ratio", 4.0),
        qkv_bias=choices.get("qkv_bias", True),
        class_token=choices.get("class_token", True),
    )  # fmt: skip
    assert not model.training
    with torch.no_grad():
        assert gap(logits, model(images)) <= 1e-5


@pytest.mark.parametrize("safe", [False, True, "both"])
def test_a_folder_is_loaded_whatever_its_file_format(tmp_path, jitter, safe):
    """By default timm writes a pickle of tensors, pytorch_model.bin."""
    images, logits = save_folder(tmp_path / "vit", jitter, safe=safe)
    with torch.no_grad():
        assert gap(logits, load_pretrained(tmp_path / "vit")(images)) <= 1e-5


def test_a_folder_of_an_oblong_model_is_loaded(tmp_path, jitter):
    images, logits = save_folder(tmp_path / "vit", jitter, img_size=(32, 48))
    model = load_pretrained(str(tmp_path / "vit"))
    assert model.config.image_size == (32, 48)
    with torch.no_grad():
        assert gap(logits, model(images)) <= 1e-5


@pytest.mark.parametrize(
    "choices",
    [
        {"act_layer": "gelu_tanh"},
        {"act_layer": "relu"},
        {"norm_layer": "rmsnorm"},
        {"fc_norm": False, "global_pool": "avg"},
        {"global_pool": "max"},
        {"reg_tokens": 1},
    ],
    ids=lambda choices: ", ".join(f"{k}={v}" for k, v in choices.items()),
)
def test_a_folder_of_another_model_is_never_loaded_wrongly(tmp_path, jitter, choices):
    """It is refused, or gives their logits; never ours in their name."""
    images, logits = save_folder(tmp_path / "vit", jitter, **choices)
    try:
        model = load_pretrained(tmp_path / "vit")
    except ValueError as error:
        assert str(error)
        return
    with torch.no_grad():
        assert gap(logits, model(images)) <= 1e-5


def test_an_unknown_architecture_is_refused_by_name(tmp_path, jitter):
    save_folder(tmp_path / "vit", jitter)
    file = tmp_path / "vit" / "config.json"
    config = json.loads(file.read_text())
    config["architecture"] = "vit_base_patch16_clip_224"
    file.write_text(json.dumps(config))
    with pytest.raises(ValueError, match="vit_base_patch16_clip_224"):
        load_pretrained(tmp_path / "vit")


@pytest.mark.parametrize("suffix", ["pth", "pt", "bin", "safetensors"])
def test_a_bare_file_needs_what_its_shapes_do_not_say(tmp_path, peer, suffix):
    model, images, logits = peer(TINY)
    path = tmp_path / f"weights.{suffix}"
    if suffix == "safetensors":
        save_file(model.state_dict(), path)
    else:
        torch.save(model.state_dict(), path)
    with pytest.raises(ValueError, match=r"num_heads.*norm_eps.*gelu.*pool"):
        load_pretrained(path)
    loaded = load_pretrained(path, **unsaid(TINY))
    assert loaded.config == TINY
    with torch.no_grad():
        assert gap(logits, loaded(images)) <= 1e-5


@pytest.mark.parametrize("name", ["model", "state_dict"])
def test_a_checkpoint_of_a_training_run_is_unpacked(tmp_path, peer, name):
    """DeiT's released files keep the weights under "model"."""
    model, images, logits = peer(TINY)
    path = tmp_path / "checkpoint.pth"
    torch.save({name: model.state_dict(), "epoch": 3}, path)
    with torch.no_grad():
        assert gap(logits, load_pretrained(path, **unsaid(TINY))(images)) <= 1e-5


def test_a_hub_name_is_fetched_by_huggingface_hub(tmp_path, jitter, monkeypatch):
    images, logits = save_folder(tmp_path / "vit", jitter)
    asked = []

    def snapshot_download(repo_id, **arguments):
        asked.append((repo_id, arguments))
        return str(tmp_path / "vit")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    monkeypatch.chdir(tmp_path)
    model = load_pretrained("someone/vit_tiny_patch16_224.of_theirs")
    ((repo_id, arguments),) = asked
    assert repo_id == "someone/vit_tiny_patch16_224.of_theirs"
    assert "*.bin" not in str(arguments)
    with torch.no_grad():
        assert gap(logits, model(images)) <= 1e-5


def test_without_a_network_the_hub_names_the_way_out(tmp_path, monkeypatch):
    def snapshot_download(repo_id, **arguments):
        raise OSError("no route to host")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"someone/vit.*no route to host.*path"):
        load_pretrained("someone/vit")


def test_the_network_is_out_of_reach_here():
    with pytest.raises(AssertionError, match=r"network.*huggingface\.co"):
        socket.create_connection(("huggingface.co", 443))
    with socket.socket() as line, pytest.raises(AssertionError, match="network"):
        line.connect(("192.0.2.1", 443))
