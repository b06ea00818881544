"""`preprocess` against what each library does to the same photo."""

import json

import numpy as np
import pytest
import timm
import torch
import transformers
from PIL import Image
from timm.data import create_transform, resolve_data_config
from torchvision.models import ViT_B_16_Weights, ViT_B_32_Weights, ViT_H_14_Weights

from vitlib.checkpoints import load_preprocessing
from vitlib.data import sample_image
from vitlib.predict import PREPROCESSING, preprocess

CAT = sample_image()
# Both resize with PIL: not a shade apart.
EXACT = 0.01
# They resize tensors, and round elsewhere.
ROUNDED = 2


def shades_apart(theirs, found, settings):
    """Return the largest difference in shades of 255, the normalisation undone."""
    theirs = theirs if theirs.ndim == 4 else theirs[None]
    assert found.shape == theirs.shape and found.dtype == theirs.dtype
    std = torch.tensor(settings["std"]).view(3, 1, 1)
    # A picture, not a plain colour.
    assert (theirs * std).std() > 0.05
    return ((theirs - found) * std).abs().max().item() * 255


def portrait(image):
    return image.rotate(90, expand=True)


PHOTOS = {"landscape": CAT, "portrait": portrait(CAT), "small": CAT.resize((90, 61))}


# ---- timm -------------------------------------------------------------------------


def timm_settings(**choices):
    with torch.device("meta"):
        model = timm.create_model("vit_tiny_patch16_224", depth=1)
    return resolve_data_config(choices, model=model)


@pytest.mark.parametrize("photo", PHOTOS)
def test_timms_defaults(photo):
    settings = timm_settings()
    theirs = create_transform(**settings)(PHOTOS[photo])
    found = preprocess(PHOTOS[photo], **PREPROCESSING["timm"])
    assert shades_apart(theirs, found, PREPROCESSING["timm"]) <= EXACT
    # The arguments' own defaults are these.
    assert torch.equal(found, preprocess(PHOTOS[photo]))


@pytest.mark.parametrize("photo", PHOTOS)
@pytest.mark.parametrize(
    "choices",
    [
        {},
        {"crop_pct": 1.0, "input_size": (3, 384, 384)},
        {"crop_pct": 0.95, "interpolation": "bilinear"},
        {"crop_mode": "squash", "crop_pct": 1.0},
        {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)},
    ],
    ids=lambda choices: ", ".join(choices) or "as it is",
)
def test_a_timm_folder_says_how(tmp_path, photo, choices):
    model = timm.create_model("vit_tiny_patch16_224", depth=1, dynamic_img_size=True)
    timm.models.save_for_hf(
        model, tmp_path / "vit", safe_serialization=True, data_config=choices
    )
    theirs = create_transform(**timm_settings(**choices))(PHOTOS[photo])
    settings = load_preprocessing(tmp_path / "vit")
    found = preprocess(PHOTOS[photo], **settings)
    assert shades_apart(theirs, found, settings) <= EXACT


@pytest.mark.parametrize(
    "choices", [{"crop_mode": "border"}, {"interpolation": "lanczos"}]
)
def test_what_preprocess_cannot_do_is_refused(tmp_path, choices):
    model = timm.create_model("vit_tiny_patch16_224", depth=1)
    folder = tmp_path / "vit"
    timm.models.save_for_hf(model, folder, safe_serialization=True, data_config=choices)
    with pytest.raises(ValueError, match="|".join(map(str, choices.values()))):
        load_preprocessing(folder)


# ---- torchvision ------------------------------------------------------------------


@pytest.mark.parametrize("photo", PHOTOS)
@pytest.mark.parametrize(
    "weights",
    [
        ViT_B_16_Weights.IMAGENET1K_V1,
        ViT_B_32_Weights.IMAGENET1K_V1,
        ViT_B_16_Weights.IMAGENET1K_SWAG_E2E_V1,
        ViT_B_16_Weights.IMAGENET1K_SWAG_LINEAR_V1,
        ViT_H_14_Weights.IMAGENET1K_SWAG_E2E_V1,
    ],
    ids=lambda weights: f"{type(weights).__name__}.{weights.name}",
)
def test_torchvisions_weights(weights, photo):
    transform = weights.transforms()
    settings = PREPROCESSING["torchvision"]
    if "SWAG" in weights.name:
        settings = settings | {
            "image_size": transform.crop_size[0],
            "crop_fraction": 1.0,
            "interpolation": "bicubic",
        }
    theirs = transform(PHOTOS[photo])
    found = preprocess(PHOTOS[photo], **settings)
    assert shades_apart(theirs, found, settings) <= EXACT


# ---- transformers -----------------------------------------------------------------


@pytest.mark.parametrize("photo", PHOTOS)
@pytest.mark.parametrize(
    "choices",
    [
        {},
        {"size": {"height": 384, "width": 384}},
        {"size": {"height": 160, "width": 224}, "resample": 3},
        {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]},
    ],
    ids=lambda choices: ", ".join(choices) or "as it is",
)
@pytest.mark.parametrize("kind", ["ViTImageProcessor", "ViTImageProcessorPil"])
def test_a_transformers_folder_says_how(tmp_path, photo, choices, kind):
    processor = getattr(transformers, kind)(**choices)
    processor.save_pretrained(tmp_path)
    settings = load_preprocessing(tmp_path)
    if not choices:
        assert settings == PREPROCESSING["transformers"] | {"image_size": 224}
    theirs = processor(PHOTOS[photo], return_tensors="pt")["pixel_values"]
    found = preprocess(PHOTOS[photo], **settings)
    assert shades_apart(theirs, found, settings) <= (
        EXACT if kind.endswith("Pil") else ROUNDED
    )


def test_an_older_folder_gives_its_size_as_one_number(tmp_path):
    processor = transformers.ViTImageProcessor()
    processor.save_pretrained(tmp_path)
    file = tmp_path / "preprocessor_config.json"
    settings = json.loads(file.read_text())
    settings["size"] = 224
    for name in ("do_rescale", "rescale_factor", "image_processor_type"):
        del settings[name]
    settings["feature_extractor_type"] = "ViTFeatureExtractor"
    file.write_text(json.dumps(settings))
    read = transformers.ViTImageProcessor.from_pretrained(tmp_path)
    theirs = read(CAT, return_tensors="pt")["pixel_values"]
    settings = load_preprocessing(tmp_path)
    assert shades_apart(theirs, preprocess(CAT, **settings), settings) <= ROUNDED


@pytest.mark.parametrize(
    "choices",
    [
        {"resample": 1},
        {"do_resize": False},
        {"do_rescale": False},
        {"do_normalize": False},
        {"rescale_factor": 1 / 127.5},
        {"do_center_crop": True, "crop_size": {"height": 200, "width": 200}},
        {"size": {"shortest_edge": 224}},
    ],
    ids=lambda choices: ", ".join(choices),
)
def test_a_transformers_folder_is_followed_or_refused(tmp_path, choices):
    """Whatever it says: either the same pixels or an error that says why."""
    processor = transformers.ViTImageProcessor(**choices)
    processor.save_pretrained(tmp_path)
    try:
        settings = load_preprocessing(tmp_path)
    except ValueError as error:
        assert any(name in str(error) for name in choices), str(error)
        return
    theirs = processor(CAT, return_tensors="pt")["pixel_values"]
    assert shades_apart(theirs, preprocess(CAT, **settings), settings) <= ROUNDED


# ---- what a wrong choice costs ----------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [{"resize": "squash"}, {"crop_fraction": 1.0}, {"interpolation": "bilinear"}],
    ids=lambda change: next(iter(change)),
)
def test_another_choice_moves_the_pixels(change):
    theirs = create_transform(**timm_settings())(CAT)
    settings = PREPROCESSING["timm"]
    assert shades_apart(theirs, preprocess(CAT, **settings | change), settings) > 10


def test_a_flat_grey_photo_is_the_same_for_all():
    """Only the normalisation is left: the shade, exactly."""
    grey = Image.fromarray(np.full((300, 451, 3), 100, np.uint8))
    for name in PREPROCESSING:
        settings = PREPROCESSING[name]
        expected = (100 / 255 - torch.tensor(settings["mean"])) / torch.tensor(
            settings["std"]
        )
        found = preprocess(grey, **settings)
        torch.testing.assert_close(found, expected.view(1, 3, 1, 1).expand_as(found))
