"""Cutting images into patches, and the linear map that makes them tokens."""

from einops import rearrange
from torch import Tensor, nn

from vitlib.arguments import (
    as_pair,
    require_choice,
    require_dtype,
    require_finite,
    require_float,
    require_number,
    require_tensor,
    require_whole,
)


def grid_of(image_size: int | tuple[int, int], patch_size: int | tuple[int, int]):
    """Count the patches down and across an image.

    Args:
        image_size: Side of a square image, or (H, W), in pixels.
        patch_size: Side of a square patch, or (p1, p2), in pixels.
    Returns:
        The grid as (rows, cols).
    Raises:
        ValueError: H or W is not divisible by patch_size.
    Reference:
        Dosovitskiy et al. 2021, sec. 3.1. Chapter 01.
    """
    sides = as_pair("image_size", image_size)
    patch_sides = as_pair("patch_size", patch_size)
    for name, side, patch in zip(("height", "width"), sides, patch_sides, strict=True):
        if side % patch:
            smaller, larger = side // patch * patch, (side // patch + 1) * patch
            crop = f"crop to {smaller} or " if smaller else ""
            raise ValueError(
                f"image {name} {side} is not divisible by patch_size {patch}: "
                f"{crop}pad to {larger}"
            )
    return sides[0] // patch_sides[0], sides[1] // patch_sides[1]


def split_patches(images: Tensor, patch_size: int | tuple[int, int]) -> Tensor:
    """Cut images into flat, row-major patches.

    A patch is flattened channel first, `(c p1 p2)`: the order in which a strided
    Conv2d stores its kernel.

    Args:
        images: Pixels, any dtype.
        patch_size: Side of a square patch, or (p1, p2), in pixels.
    Shape:
        images (b, c, H, W) -> (b, n, c*p1*p2)
    Raises:
        ValueError: H or W is not divisible by patch_size.
    Reference:
        Dosovitskiy et al. 2021, sec. 3.1, Eq. 1. Chapter 01.
    """
    require_tensor("images", images, "b c H W")
    p1, p2 = as_pair("patch_size", patch_size)
    grid_of(tuple(images.shape[2:]), (p1, p2))
    return rearrange(
        images, "b c (rows p1) (cols p2) -> b (rows cols) (c p1 p2)", p1=p1, p2=p2
    )


def merge_patches(
    patches: Tensor,
    patch_size: int | tuple[int, int],
    image_size: int | tuple[int, int],
) -> Tensor:
    """Put flat patches back together: the exact inverse of `split_patches`.

    Args:
        patches: Flat patches in row-major order, each flattened `(c p1 p2)`.
        patch_size: Side of a square patch, or (p1, p2), in pixels.
        image_size: Side of the square image to rebuild, or (H, W), in pixels.
    Shape:
        patches (b, n, c*p1*p2) -> (b, c, H, W)
    Raises:
        ValueError: n is not the number of patches of such an image, the length
            of a patch is no multiple of p1*p2, or H or W is not divisible.
    Reference:
        Chapter 01.
    """
    require_tensor("patches", patches, "b n c*p1*p2")
    p1, p2 = as_pair("patch_size", patch_size)
    rows, cols = grid_of(image_size, (p1, p2))
    if patches.shape[1] != rows * cols:
        raise ValueError(
            f"{patches.shape[1]} patches arrived, but an image of "
            f"{rows * p1}x{cols * p2} pixels has {rows}*{cols} = {rows * cols}: "
            "leave out the class token, or correct image_size"
        )
    if patches.shape[2] % (p1 * p2):
        raise ValueError(
            f"a patch has {patches.shape[2]} values, no multiple of "
            f"{p1}*{p2} = {p1 * p2}: give pixels, not embeddings, or correct patch_size"
        )
    return rearrange(
        patches,
        "b (rows cols) (c p1 p2) -> b c (rows p1) (cols p2)",
        rows=rows,
        p1=p1,
        p2=p2,
    )


class PatchEmbed(nn.Module):
    """Turn an image into a row of tokens: cut, flatten, one linear map for all.

    The map is stored as a Conv2d whose kernel and stride are the patch, which is
    the same arithmetic as `split_patches` followed by a Linear layer.

    Args:
        image_size: Side of the square images to accept, or (H, W), in pixels.
        patch_size: Side of a square patch, or (p1, p2), in pixels.
        in_channels: Colours of a pixel.
        embed_dim: Length of a token, e.
        patch_norm: False for none, "after" for a LayerNorm on the tokens, True
            for one on the flat pixels as well (Dual PatchNorm).
        norm_eps: Added to the variance in those LayerNorms.
    Shape:
        images (b, c, H, W) -> (b, n, e)
    Raises:
        ValueError: the images do not have the size and channels of the model, are
            not floats, or hold NaN; a size does not divide.
    Reference:
        Dosovitskiy et al. 2021, Eq. 1; Kumar et al. 2023 for Dual PatchNorm.
        Chapter 01.
    """

    def __init__(
        self,
        *,
        image_size: int | tuple[int, int],
        patch_size: int | tuple[int, int],
        in_channels: int,
        embed_dim: int,
        patch_norm: bool | str = False,
        norm_eps: float = 1e-6,
    ):
        super().__init__()
        require_whole("in_channels", in_channels)
        require_whole("embed_dim", embed_dim)
        require_choice("patch_norm", patch_norm, (False, "after", True))
        require_number("norm_eps", norm_eps)
        self.image_size = as_pair("image_size", image_size)
        self.patch_size = as_pair("patch_size", patch_size)
        self.in_channels = in_channels
        self.grid_size = grid_of(image_size, patch_size)
        patch_dim = in_channels * self.patch_size[0] * self.patch_size[1]

        self.pixel_norm = (
            nn.LayerNorm(patch_dim, eps=norm_eps) if patch_norm is True else None
        )
        self.proj = nn.Conv2d(
            in_channels, embed_dim, kernel_size=self.patch_size, stride=self.patch_size
        )
        self.norm = nn.LayerNorm(embed_dim, eps=norm_eps) if patch_norm else None

    def forward(self, images: Tensor) -> Tensor:
        """Embed every patch of every image."""
        self._require_images(images)
        if self.pixel_norm is not None:
            patches = self.pixel_norm(split_patches(images, self.patch_size))
            images = merge_patches(patches, self.patch_size, self.image_size)
        tokens = self.proj(images)  # (b, e, rows, cols)
        tokens = rearrange(tokens, "b e rows cols -> b (rows cols) e")
        return tokens if self.norm is None else self.norm(tokens)

    def _require_images(self, images: Tensor) -> None:
        require_tensor("images", images, "b c H W")
        _, channels, height, width = images.shape
        if channels != self.in_channels:
            raise ValueError(
                f"images have {channels} channels, the model takes "
                f"{self.in_channels}: convert them, or build the model with "
                f"in_channels={channels}; the axes are (b, c, H, W), channels-last "
                "images need .permute(0, 3, 1, 2)"
            )
        if (height, width) != self.image_size:
            raise ValueError(
                f"images are {height}x{width}, the model takes "
                f"{self.image_size[0]}x{self.image_size[1]}: resize them, or build "
                f"the model with image_size=({height}, {width})"
            )
        require_float("images", images)
        require_dtype("images", images, self.proj.weight)
        require_finite("images", images)
