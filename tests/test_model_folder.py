"""What config.json and preprocessor_config.json say, and what they must not."""

import json
import re

import pytest

from vitlib.model_folder import read_config, read_preprocessing

HF = {"model_type": "vit"}
TIMM = {"architecture": "vit_base_patch16_224"}
HF_PHOTOS = {
    "size": {"height": 6, "width": 6}, "resample": 3,
    "image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6],
}  # fmt: skip
TIMM_PHOTOS = {
    "input_size": [3, 6, 6], "interpolation": "bilinear", "crop_pct": 0.875,
    "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6],
}  # fmt: skip
BY_HAND = "give the weights file itself, with num_heads, norm_eps, gelu and pool"


@pytest.fixture
def folder(tmp_path):
    """Return a function that fills a folder with JSON files."""

    def fill(**files):
        for name, content in files.items():
            text = content if isinstance(content, str) else json.dumps(content)
            (tmp_path / f"{name}.json").write_text(text, "utf-8")
        return tmp_path

    return fill


def exact_match(message):
    return f"^{re.escape(message)}$"


# ---- the model --------------------------------------------------------------------


def test_what_transformers_leaves_out_has_its_defaults(folder):
    assert read_config(folder(config=HF)) == {
        "num_heads": 12,
        "norm_eps": 1e-12,
        "gelu": "erf",
        "pool": "cls",
        "image_size": 224,
    }


def test_what_transformers_says(folder):
    said = {
        "num_attention_heads": 3,
        "layer_norm_eps": 1e-6,
        "hidden_act": "gelu_new",
        "image_size": [32, 48],
        "hidden_size": 5,
    }
    assert read_config(folder(config=HF | said)) == {
        "num_heads": 3,
        "norm_eps": 1e-6,
        "gelu": "tanh",
        "pool": "cls",
        "image_size": (32, 48),
    }


@pytest.mark.parametrize(
    ("activation", "gelu"),
    [
        ("gelu", "erf"),
        ("gelu_new", "tanh"),
        ("gelu_fast", "tanh"),
        ("gelu_pytorch_tanh", "tanh"),
    ],
)
def test_the_gelus_of_transformers(folder, activation, gelu):
    assert read_config(folder(config=HF | {"hidden_act": activation}))["gelu"] == gelu


@pytest.mark.parametrize("activation", ["relu", "quick_gelu", "gelu_10", "GELU"])
def test_another_activation(folder, activation):
    message = (
        f"config.json has hidden_act {activation!r}, which ViT lacks: it has 'gelu', "
        "'gelu_new', 'gelu_fast', 'gelu_pytorch_tanh'"
    )
    with pytest.raises(ValueError, match=exact_match(message)):
        read_config(folder(config=HF | {"hidden_act": activation}))


@pytest.mark.parametrize("kind", ["deit", "dinov2", "swin", None, "ViT", ["vit"]])
def test_another_kind_of_model(folder, kind):
    message = (
        f"config.json has model_type {kind!r}: only 'vit' and timm's ViTs can be read"
    )
    with pytest.raises(ValueError, match=exact_match(message)):
        read_config(folder(config={"model_type": kind}))
    with pytest.raises(ValueError, match=r"^config.json has model_type None: only"):
        read_config(folder(config={}))


@pytest.mark.parametrize(
    ("name", "heads"),
    [
        ("vit_tiny_patch16_224", 3),
        ("vit_small_patch32_384", 6),
        ("vit_base_patch8_224", 12),
        ("vit_large_patch16_224", 16),
        ("vit_huge_patch14_224", 16),
        ("deit_tiny_patch16_224", 3),
        ("deit_base_patch16_384", 12),
    ],
)
def test_timms_plain_architectures(folder, name, heads):
    expected = {"num_heads": heads, "norm_eps": 1e-6, "gelu": "erf", "pool": "cls"}
    path = folder(config={"architecture": name})
    assert read_config(path) == expected
    folder(config={"architecture": name, "model_args": None, "global_pool": "token"})
    assert read_config(path) == expected


@pytest.mark.parametrize(
    "name",
    [
        "vit_base_patch16_clip_224", "vit_base_patch16_siglip_224", "resnet50",
        "vit_giant_patch14_224", "vit_base_patch16_rope_224", "xvit_base_patch16_224",
        "deit_base_distilled_patch16_224", "deit3_base_patch16_224",
        "vit_base_patch16_224_miil", "vit_relpos_base_patch16_224", "beit_base", "",
    ],
)  # fmt: skip
def test_timms_other_architectures(folder, name):
    message = (
        f"config.json has timm's architecture {name!r}, whose heads, eps and GELU are "
        f"not known here: {BY_HAND}"
    )
    with pytest.raises(ValueError, match=exact_match(message)):
        read_config(folder(config={"architecture": name}))


@pytest.mark.parametrize(
    ("extra", "changes"),
    [
        ({"model_args": {"num_heads": 4}}, {"num_heads": 4}),
        ({"model_args": {"img_size": 384}}, {"image_size": 384}),
        ({"model_args": {"img_size": [6, 6]}}, {"image_size": 6}),
        ({"model_args": {"img_size": [6, 8]}}, {"image_size": (6, 8)}),
        ({"model_args": {"global_pool": "avg"}}, {"pool": "mean"}),
        ({"global_pool": "avg"}, {"pool": "mean"}),
        ({"global_pool": "avg", "model_args": {"global_pool": "token"}}, {}),
        (
            {"model_args": {"global_pool": "avg", "pool_include_prefix": True}},
            {"pool": "mean_all"},
        ),
        (
            {"model_args": {"global_pool": "avg", "pool_include_prefix": False}},
            {"pool": "mean"},
        ),
        ({"model_args": {"pool_include_prefix": True}}, {}),
        (
            {
                "model_args": {
                    "patch_size": 4, "in_chans": 1, "num_classes": 5, "embed_dim": 6,
                    "depth": 7, "mlp_ratio": 3, "qkv_bias": False, "drop_rate": 0.1,
                    "class_token": False, "dynamic_img_size": True,
                    "attn_drop_rate": 0.1, "pos_drop_rate": 0.1, "proj_drop_rate": 0.1,
                    "drop_path_rate": 0.1,
                }
            },
            {},
        ),
    ],
)  # fmt: skip
def test_what_timm_says(folder, extra, changes):
    expected = {"num_heads": 12, "norm_eps": 1e-6, "gelu": "erf", "pool": "cls"}
    assert read_config(folder(config=TIMM | extra)) == expected | changes


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("norm_layer", "rmsnorm"), ("act_layer", "relu"), ("no_embed_class", True),
        ("init_values", 1e-5), ("qk_norm", True), ("pre_norm", True),
        ("reg_tokens", 4), ("fc_norm", False), ("final_norm", False),
    ],
)  # fmt: skip
def test_what_may_change_the_meaning_of_timms_numbers(folder, name, value):
    message = (
        f"config.json builds timm's vit_base_patch16_224 with {name}={value!r}, which "
        f"may change what its numbers mean: {BY_HAND}"
    )
    arguments = {"zzz": 1, name: value, "num_heads": 3}
    with pytest.raises(ValueError, match=exact_match(message)):
        read_config(folder(config=TIMM | {"model_args": arguments}))


@pytest.mark.parametrize("pool", ["max", "map", "", "avgmax", None])
def test_another_pool_of_timm(folder, pool):
    message = exact_match(f"config.json has global_pool {pool!r}, which ViT lacks")
    with pytest.raises(ValueError, match=message):
        read_config(folder(config=TIMM | {"global_pool": pool}))


@pytest.mark.parametrize("read", [read_config, read_preprocessing])
def test_a_folder_without_config(tmp_path, read):
    message = f"{str(tmp_path)!r} has no config.json: {BY_HAND}"
    with pytest.raises(ValueError, match=exact_match(message)):
        read(tmp_path)


@pytest.mark.parametrize("text", ["", "{", '{"model_type": "vit"', "model_type: vit"])
def test_a_config_that_is_no_json(folder, text):
    path = folder(config=text)
    message = re.escape(f"{str(path / 'config.json')!r} is no JSON (") + r".+\)$"
    for read in (read_config, read_preprocessing):
        with pytest.raises(ValueError, match=message):
            read(path)


# ---- its photos -------------------------------------------------------------------


def test_photos_for_a_transformers_model(folder):
    path = folder(config=HF, preprocessor_config=HF_PHOTOS)
    assert read_preprocessing(path) == {
        "image_size": 6,
        "resize": "squash",
        "crop_fraction": 1.0,
        "interpolation": "bicubic",
        "mean": (0.1, 0.2, 0.3),
        "std": (0.4, 0.5, 0.6),
    }
    (path / "config.json").unlink()
    assert read_preprocessing(path)["image_size"] == 6


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"size": 8}, {"image_size": 8}),
        ({"size": {"height": 6, "width": 8}}, {"image_size": (6, 8)}),
        ({"resample": 2}, {"interpolation": "bilinear"}),
        ({"do_resize": True, "do_rescale": True, "do_normalize": True}, {}),
        ({"do_center_crop": False}, {}),
        ({"rescale_factor": 0.00392156862745098}, {}),
        ({"rescale_factor": 0.003921569}, {}),
    ],
)
def test_what_transformers_says_of_photos(folder, said, expected):
    plain = read_preprocessing(folder(preprocessor_config=HF_PHOTOS))
    found = read_preprocessing(folder(preprocessor_config=HF_PHOTOS | said))
    assert found == plain | expected


@pytest.mark.parametrize(
    "said",
    [
        {"do_resize": False}, {"do_rescale": False}, {"do_normalize": False},
        {"do_center_crop": True}, {"resample": 0}, {"resample": 1},
        {"rescale_factor": 1 / 127.5}, {"rescale_factor": 1}, {"rescale_factor": 0},
        {"rescale_factor": 1 / 256}, {"size": {"shortest_edge": 6}},
        {"size": {"height": 6}},
    ],
)  # fmt: skip
def test_photos_that_preprocess_cannot_prepare(folder, said):
    ((name, value),) = said.items()
    message = (
        f"preprocessor_config.json has {value!r} for {name}: preprocess cannot do "
        "that; prepare the photos with transformers"
    )
    with pytest.raises(ValueError, match=exact_match(message)):
        read_preprocessing(folder(preprocessor_config=HF_PHOTOS | said))


@pytest.mark.parametrize("inside", [False, True])
def test_photos_for_a_timm_model(folder, inside):
    """They stand under pretrained_cfg; older files have them beside the name."""
    config = TIMM | ({"pretrained_cfg": TIMM_PHOTOS} if inside else TIMM_PHOTOS)
    assert read_preprocessing(folder(config=config)) == {
        "image_size": 6,
        "resize": "shorter",
        "crop_fraction": 0.875,
        "interpolation": "bilinear",
        "mean": (0.1, 0.2, 0.3),
        "std": (0.4, 0.5, 0.6),
    }


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"input_size": [3, 6, 8]}, {"image_size": (6, 8)}),
        ({"interpolation": "bicubic"}, {"interpolation": "bicubic"}),
        ({"crop_pct": 1}, {"crop_fraction": 1}),
        ({"crop_mode": "center"}, {}),
        ({"crop_mode": "squash"}, {"resize": "squash"}),
    ],
)
def test_what_timm_says_of_photos(folder, said, expected):
    plain = read_preprocessing(folder(config=TIMM | TIMM_PHOTOS))
    found = read_preprocessing(folder(config=TIMM | TIMM_PHOTOS | said))
    assert found == plain | expected


@pytest.mark.parametrize(
    "said",
    [
        {"crop_mode": "border"},
        {"interpolation": "nearest"},
        {"interpolation": "random"},
    ],
)
def test_photos_that_only_timm_can_prepare(folder, said):
    ((name, value),) = said.items()
    message = (
        f"config.json has {value!r} for {name}: preprocess cannot do that; prepare "
        "the photos with timm"
    )
    with pytest.raises(ValueError, match=exact_match(message)):
        read_preprocessing(folder(config=TIMM | TIMM_PHOTOS | said))


@pytest.mark.parametrize("name", HF_PHOTOS)
def test_what_transformers_does_not_say_of_photos(folder, name):
    said = {key: value for key, value in HF_PHOTOS.items() if key != name}
    path = folder(preprocessor_config=said)
    message = (
        f"preprocessor_config.json has nothing for {name}: that cannot be read; give "
        "the arguments yourself"
    )
    with pytest.raises(ValueError, match=exact_match(message)):
        read_preprocessing(path)


@pytest.mark.parametrize("name", TIMM_PHOTOS)
def test_what_timm_does_not_say_of_photos(folder, name):
    said = {key: value for key, value in TIMM_PHOTOS.items() if key != name}
    path = folder(config=TIMM | said)
    message = (
        f"config.json has nothing for {name}: that cannot be read; give the "
        "arguments yourself"
    )
    with pytest.raises(ValueError, match=exact_match(message)):
        read_preprocessing(path)


def test_a_transformers_model_that_says_nothing_of_photos(folder):
    path = folder(config=HF)
    message = exact_match(f"{str(path)!r} has no preprocessor_config.json")
    with pytest.raises(ValueError, match=message):
        read_preprocessing(path)


# ---- what once went wrong ---------------------------------------------------------


@pytest.mark.parametrize("text", ["[1]", "null", "3", '"architecture"', "deep"])
@pytest.mark.parametrize("name", ["config", "preprocessor_config"])
def test_json_that_is_no_object(folder, name, text):
    path = folder(**{name: "[" * 100_000 if text == "deep" else text})
    read = read_config if name == "config" else read_preprocessing
    with pytest.raises(ValueError, match=rf"{name}\.json'"):
        read(path)


def test_json_that_is_no_text(tmp_path):
    (tmp_path / "config.json").write_bytes(b"\xff\xfe{}")
    with pytest.raises(ValueError, match=r"config\.json' is no JSON"):
        read_config(tmp_path)


@pytest.mark.parametrize(
    ("config", "name"),
    [
        (HF | {"hidden_act": []}, "hidden_act"),
        (HF | {"image_size": [1, 2, 3]}, "image_size"),
        (HF | {"image_size": "224"}, "image_size"),
        (HF | {"num_attention_heads": "12"}, "num_attention_heads"),
        (HF | {"layer_norm_eps": None}, "layer_norm_eps"),
        ({"architecture": 3}, "architecture"),
        (TIMM | {"model_args": [1]}, "model_args"),
        (TIMM | {"model_args": "x"}, "model_args"),
        (TIMM | {"model_args": {"img_size": [1]}}, "img_size"),
    ],
)
def test_configs_of_the_wrong_kind(folder, config, name):
    with pytest.raises(ValueError, match=rf"config\.json.*{name}"):
        read_config(folder(config=config))


@pytest.mark.parametrize(
    ("name", "photos"),
    [
        ("pretrained_cfg", TIMM | {"pretrained_cfg": []}),
        ("crop_mode", TIMM | TIMM_PHOTOS | {"crop_mode": []}),
        ("input_size", TIMM | TIMM_PHOTOS | {"input_size": 224}),
        ("input_size", TIMM | TIMM_PHOTOS | {"input_size": [3, 4]}),
        ("mean", TIMM | TIMM_PHOTOS | {"mean": 0.5}),
        ("size", HF_PHOTOS | {"size": None}),
        ("resample", HF_PHOTOS | {"resample": []}),
        ("rescale_factor", HF_PHOTOS | {"rescale_factor": "a"}),
        ("image_mean", HF_PHOTOS | {"image_mean": 0.5}),
    ],
)
def test_photo_rules_of_the_wrong_kind(folder, name, photos):
    file = "config" if "architecture" in photos else "preprocessor_config"
    with pytest.raises(ValueError, match=rf"{file}\.json.*{name}"):
        read_preprocessing(folder(**{file: photos}))


@pytest.mark.parametrize(
    ("text", "kind"),
    [("[1]", "list"), ("null", "NoneType"), ("3", "int"), ('"architecture"', "str")],
)
def test_what_a_file_holds_instead_of_an_object(folder, text, kind):
    path = folder(config=text)
    message = f"{str(path / 'config.json')!r} holds a {kind}, no object"
    with pytest.raises(ValueError, match=exact_match(message)):
        read_config(path)


@pytest.mark.parametrize(
    "value", [[0.5, 0.5], [0.5] * 4, [0.5, 0.5, "0.5"], [True] * 3]
)
def test_colours_are_three_numbers(folder, value):
    message = f"config.json has {value!r} for mean: a list of 3 numbers is needed"
    with pytest.raises(ValueError, match=exact_match(message)):
        read_preprocessing(folder(config=TIMM | TIMM_PHOTOS | {"mean": value}))


@pytest.mark.parametrize("value", [[6], [6, 6, 6], [6, 8.0], [6, None], [6, True]])
def test_sizes_are_two_whole_numbers(folder, value):
    message = f"config.json has {value!r} for image_size: a list of 2 numbers is needed"
    with pytest.raises(ValueError, match=exact_match(message)):
        read_config(folder(config=HF | {"image_size": value}))


@pytest.mark.parametrize(
    ("name", "value"),
    [("num_attention_heads", True), ("layer_norm_eps", True), ("image_size", True)],
)
def test_true_is_no_number(folder, name, value):
    message = (
        f"config.json has True for {name}: that cannot be read; give the arguments "
        "yourself"
    )
    with pytest.raises(ValueError, match=exact_match(message)):
        read_config(folder(config=HF | {name: value}))


def test_names_may_be_in_any_script(folder):
    """JSON is UTF-8, whatever the machine's own encoding is."""
    path = folder(
        config=json.dumps(HF | {"author": "Ünïcødé 고양이"}, ensure_ascii=False)
    )
    assert read_config(path)["num_heads"] == 12


def test_an_empty_pretrained_cfg_is_none(folder):
    config = TIMM | TIMM_PHOTOS | {"pretrained_cfg": None}
    assert read_preprocessing(folder(config=config))["image_size"] == 6


def test_a_scale_that_is_no_number(folder):
    path = folder(preprocessor_config=HF_PHOTOS | {"rescale_factor": float("nan")})
    with pytest.raises(ValueError, match=r"nan for rescale_factor"):
        read_preprocessing(path)


def test_a_folder_given_as_text(folder):
    assert read_config(str(folder(config=HF))) == read_config(folder(config=HF))
