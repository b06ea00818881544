"""transformers' ViTForImageClassification, in memory, in files and in folders."""

import dataclasses
import json

import pytest
import torch
import transformers
from agreement import (
    TOLERANCE,
    assert_agree,
    assert_differ,
    assert_norms_and_gelus,
    class_position_last,
    colour_last,
    columns_before_rows,
    draw_images,
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
from safetensors.torch import load_file
from transformers import activations

from vitlib import ViTConfig
from vitlib.checkpoints import load_pretrained
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
    norm_eps=1e-12,
)
SQUARE = dataclasses.replace(
    TINY, image_size=12, patch_size=3, mlp_ratio=1.0, num_classes=24
)
CONFIGS = {
    "tiny": TINY,
    "no qkv bias": dataclasses.replace(TINY, qkv_bias=False),
    "eps 1e-6": dataclasses.replace(TINY, norm_eps=1e-6),
    "square": SQUARE,
    "one head": dataclasses.replace(TINY, num_heads=1),
    "wide heads": dataclasses.replace(TINY, head_dim=20),
    "one colour": dataclasses.replace(TINY, in_channels=1),
    "eleven blocks": dataclasses.replace(TINY, depth=11),
    "384": dataclasses.replace(TINY, image_size=384, patch_size=16, depth=1),
}
GELUS = {
    activations.GELUActivation: "none",
    activations.GELUTanh: "tanh",
    activations.NewGELUActivation: "tanh",
    activations.FastGELUActivation: "tanh",
}


@pytest.fixture(autouse=True)
def no_progress_bar():
    transformers.utils.logging.disable_progress_bar()


def transformers_model(config, **choices):
    if config.head_dim is not None:
        choices["head_dim"] = config.head_dim
    settings = transformers.ViTConfig(
        image_size=config.image_size,
        patch_size=config.patch_size,
        num_channels=config.in_channels,
        num_labels=config.num_classes,
        hidden_size=config.embed_dim,
        num_hidden_layers=config.depth,
        num_attention_heads=config.num_heads,
        intermediate_size=int(config.embed_dim * config.mlp_ratio),
        qkv_bias=config.qkv_bias,
        layer_norm_eps=config.norm_eps,
        **choices,
    )
    return transformers.ViTForImageClassification(settings)


@pytest.fixture
def peer(jitter):
    def build(config, dtype=torch.float32, **choices):
        model = transformers_model(config, **choices)
        jitter(model, 0.2).eval().to(dtype)
        images = draw_images(config, dtype)
        with torch.no_grad():
            return model, images, model(images).logits

    return build


@pytest.fixture
def state_of(tmp_path):
    """Read a model's tensors in one of the two layouts."""

    def read(model, layout):
        if layout == "in memory":
            return model.state_dict()
        model.save_pretrained(tmp_path / "layout")
        return load_file(tmp_path / "layout" / "model.safetensors")

    return read


def unsaid(config):
    said = {name: getattr(config, name) for name in ("num_heads", "norm_eps", "gelu")}
    if not isinstance(config.image_size, int):
        said["image_size"] = config.image_size
    return said


# ---- equal logits -----------------------------------------------------------------


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("layout", ["in memory", "in files"])
def test_logits_are_equal(peer, state_of, name, layout, dtype):
    config = CONFIGS[name]
    model, images, logits = peer(config, dtype)
    state = state_of(model, layout)
    assert ("vit.layers.0.layernorm_before.weight" in state) == (layout == "in memory")
    assert detect_source(state) == "transformers"
    assert infer_config(state, "transformers", **unsaid(config)) == config
    converted = convert_state_dict(state, "transformers", config)
    assert_agree(logits, converted, config, images)
    assert_norms_and_gelus(model, config, GELUS)


def test_the_width_of_vit_b():
    config = ViTConfig(depth=2, norm_eps=1e-12)
    with torch.device("meta"):
        model = transformers_model(config)
    redraw(model)
    images = draw_images(config)
    state = model.state_dict()
    assert infer_config(state, "transformers", **unsaid(config)) == config
    with torch.no_grad():
        logits = model(images).logits
    converted = convert_state_dict(state, "transformers", config)
    assert_agree(logits, converted, config, images)
    assert_norms_and_gelus(model, config, GELUS)


def test_its_defaults_are_vit_b_16_with_eps_1e_12():
    with torch.device("meta"):
        settings = transformers.ViTConfig(num_labels=1000)
        state = transformers.ViTForImageClassification(settings).state_dict()
    config = ViTConfig(norm_eps=1e-12)
    assert infer_config(state, "transformers", **unsaid(config)) == config
    assert (settings.layer_norm_eps, settings.hidden_act) == (1e-12, "gelu")


def test_what_does_not_touch_the_scores_is_dropped(peer):
    model, images, logits = peer(TINY)
    body = transformers.ViTModel(model.config, use_mask_token=True)
    extra = {
        f"vit.{name}": value
        for name, value in body.state_dict().items()
        if name.startswith("pooler.") or name == "embeddings.mask_token"
    }
    assert len(extra) == 3
    converted = convert_state_dict(model.state_dict() | extra, "transformers", TINY)
    assert_agree(logits, converted, TINY, images)


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
        transposed("mlp.fc2"),
    ],
    ids=lambda wrong: wrong.__name__,
)
def test_nearly_right_conversions_are_found_out(peer, wrong):
    model, images, logits = peer(SQUARE)
    converted = convert_state_dict(model.state_dict(), "transformers", SQUARE)
    assert_agree(logits, converted, SQUARE, images)
    assert_differ(logits, wrong(converted, SQUARE), SQUARE, images)


@pytest.mark.parametrize(
    ("field", "value", "at_least"),
    [("pool", "mean", 1e-2), ("gelu", "tanh", 1e-5), ("norm_eps", 1e-6, 1e-8)],
)
def test_a_wrong_choice_is_found_out_in_double_precision(peer, field, value, at_least):
    model, images, logits = peer(TINY, torch.float64)
    converted = convert_state_dict(model.state_dict(), "transformers", TINY)
    other = dataclasses.replace(TINY, **{field: value})
    assert at_least >= 100 * TOLERANCE[torch.float64]
    assert_differ(logits, converted, other, images, at_least)


# ---- refused ----------------------------------------------------------------------


def test_a_model_without_a_head_is_refused(peer):
    model = peer(TINY)[0]
    state = model.state_dict()
    headless = {k: v for k, v in state.items() if not k.startswith("classifier.")}
    # What AutoModel saves has no "vit." before the names either.
    for refused in (headless, model.vit.state_dict()):
        with pytest.raises(ValueError, match="classifier"):
            convert_state_dict(refused, "transformers", TINY)
        with pytest.raises(ValueError, match="classifier"):
            infer_config(refused, "transformers", **unsaid(TINY))


def test_a_distilled_deit_is_refused():
    settings = transformers.DeiTConfig(
        hidden_size=24, num_hidden_layers=1, num_attention_heads=3,
        intermediate_size=36, image_size=12, patch_size=3, num_labels=5,
    )  # fmt: skip
    model = transformers.DeiTForImageClassificationWithTeacher(settings)
    with pytest.raises(ValueError, match="distillation token"):
        detect_source(model.state_dict())


@pytest.mark.parametrize(
    ("field", "value"),
    [("pool", "mean"), ("patch_norm", "after"), ("class_token", False)],
)
def test_what_the_code_fixes_cannot_be_changed(field, value):
    state = transformers_model(TINY).state_dict()
    other = {"pool": "mean"} if field == "class_token" else {}
    config = dataclasses.replace(TINY, **{field: value}, **other)
    with pytest.raises(ValueError, match=r"pool|patch_norm|class_token"):
        convert_state_dict(state, "transformers", config)


# ---- folders ----------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in CONFIGS if name != "384"])
def test_a_saved_folder_is_loaded(tmp_path, peer, name):
    config = CONFIGS[name]
    model, images, logits = peer(config)
    model.save_pretrained(tmp_path / "vit")
    loaded = load_pretrained(tmp_path / "vit")
    assert loaded.config == config and not loaded.training
    with torch.no_grad():
        assert gap(logits, loaded(images)) <= 1e-5


@pytest.mark.parametrize(
    ("hidden_act", "gelu"),
    [("gelu", "erf"), ("gelu_new", "tanh"), ("gelu_pytorch_tanh", "tanh")],
)
def test_the_folders_gelu_is_taken(tmp_path, peer, hidden_act, gelu):
    model, images, logits = peer(TINY, torch.float64, hidden_act=hidden_act)
    model.save_pretrained(tmp_path / "vit")
    loaded = load_pretrained(tmp_path / "vit")
    assert loaded.config.gelu == gelu
    assert_norms_and_gelus(model, loaded.config, GELUS)
    with torch.no_grad():
        assert gap(logits, loaded(images)) <= TOLERANCE[torch.float64]


@pytest.mark.parametrize("hidden_act", ["quick_gelu", "relu", "silu"])
def test_another_activation_is_refused_by_name(tmp_path, hidden_act):
    transformers_model(TINY, hidden_act=hidden_act).save_pretrained(tmp_path / "vit")
    with pytest.raises(ValueError, match=hidden_act):
        load_pretrained(tmp_path / "vit")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_stays_half(tmp_path, peer, dtype):
    model = peer(TINY)[0].to(dtype)
    model.save_pretrained(tmp_path / "vit")
    loaded = load_pretrained(tmp_path / "vit")
    assert {p.dtype for p in loaded.parameters()} == {dtype}
    q = model.vit.layers[0].attention.q_proj.weight
    assert torch.equal(loaded.blocks[0].attn.qkv.weight[:24], q)


def test_what_contradicts_the_folder_is_refused(tmp_path, peer):
    peer(TINY)[0].save_pretrained(tmp_path / "vit")
    for argument, value in (("num_heads", 4), ("norm_eps", 1e-6), ("gelu", "tanh")):
        with pytest.raises(ValueError, match=argument):
            load_pretrained(tmp_path / "vit", **{argument: value})
    assert load_pretrained(tmp_path / "vit", num_heads=3).config == TINY


def test_another_kind_of_model_is_refused_by_name(tmp_path):
    settings = transformers.BeitConfig(
        hidden_size=24, num_hidden_layers=1, num_attention_heads=3,
        intermediate_size=36, image_size=12, patch_size=3, num_labels=5,
    )  # fmt: skip
    model = transformers.BeitForImageClassification(settings)
    model.save_pretrained(tmp_path / "beit")
    with pytest.raises(ValueError, match="beit"):
        load_pretrained(tmp_path / "beit")


def test_a_folder_in_pieces_says_so(tmp_path, peer):
    """Large models are saved as several files with an index."""
    peer(TINY)[0].save_pretrained(tmp_path / "vit", max_shard_size="10kB")
    assert (tmp_path / "vit" / "model.safetensors.index.json").exists()
    with pytest.raises(ValueError, match=r"model\.safetensors"):
        load_pretrained(tmp_path / "vit")


def test_a_folder_without_a_config_says_what_to_do(tmp_path, peer):
    model, images, logits = peer(SQUARE)
    model.save_pretrained(tmp_path / "vit")
    (tmp_path / "vit" / "config.json").unlink()
    with pytest.raises(ValueError, match=r"config\.json"):
        load_pretrained(tmp_path / "vit")
    weights = tmp_path / "vit" / "model.safetensors"
    loaded = load_pretrained(weights, num_heads=3, norm_eps=1e-12, gelu="erf")
    assert loaded.config == SQUARE
    with torch.no_grad():
        assert gap(logits, loaded(images)) <= 1e-5


def test_a_hub_name_is_fetched_by_huggingface_hub(tmp_path, peer, monkeypatch):
    model, images, logits = peer(TINY)
    model.save_pretrained(tmp_path / "vit")
    asked = []
    monkeypatch.setattr(
        "huggingface_hub.snapshot_download",
        lambda repo_id, **_: asked.append(repo_id) or str(tmp_path / "vit"),
    )
    monkeypatch.chdir(tmp_path)
    loaded = load_pretrained("google/vit-of-theirs")
    assert asked == ["google/vit-of-theirs"]
    with torch.no_grad():
        assert gap(logits, loaded(images)) <= 1e-5


def test_an_older_config_leaves_defaults_out(tmp_path, peer):
    """What a config.json does not say, transformers fills in: so must we."""
    config = dataclasses.replace(TINY, embed_dim=48, num_heads=12)
    model, images, logits = peer(config)
    model.save_pretrained(tmp_path / "vit")
    file = tmp_path / "vit" / "config.json"
    settings = json.loads(file.read_text())
    for name in ("num_attention_heads", "layer_norm_eps", "hidden_act", "qkv_bias"):
        del settings[name]
    file.write_text(json.dumps(settings))
    read = transformers.ViTForImageClassification.from_pretrained(tmp_path / "vit")
    with torch.no_grad():
        assert torch.equal(read(images).logits, logits)
    loaded = load_pretrained(tmp_path / "vit")
    assert loaded.config == config
    with torch.no_grad():
        assert gap(logits, loaded(images)) <= 1e-5
