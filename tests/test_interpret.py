"""Attention, positions and deletion against loops and numbers worked out by hand."""

import dataclasses
import math
import re

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from vitlib import ViT, ViTConfig, attention_weights
from vitlib.interpret import (
    attention_rollout,
    cls_map,
    delete_patches,
    mean_attention_distance,
    position_similarity,
    record_attention,
)

# 2 x 3 = 6 patches, T = 7, e = 20, d = 6, depth 3: no two axes are equal.
TINY = ViTConfig(
    image_size=(8, 15),
    patch_size=(4, 5),
    num_classes=9,
    embed_dim=20,
    depth=3,
    num_heads=4,
    head_dim=6,
    mlp_ratio=1.5,
)
DROPPING = {"drop_rate": 0.3, "attn_drop_rate": 0.3, "drop_path_rate": 0.3}
DTYPES = [torch.float32, torch.float64, torch.bfloat16]


def vary(**changes):
    return dataclasses.replace(TINY, **changes)


def make_images(b=2):
    return torch.randn(b, 3, 8, 15)


def make_attention(*shape, sharpness=2.0):
    """Rows that sum to 1; the last of `shape` is the number of tokens."""
    return (sharpness * torch.randn(*shape, shape[-1])).softmax(dim=-1)


# ---- recording -------------------------------------------------------------------


def weights_by_hand(model, images):
    """The model walked through block by block, its heads one after the other."""
    b = len(images)
    tokens = model.patch_embed(images)
    if model.cls_token is not None:
        tokens = torch.cat([model.cls_token.expand(b, -1, -1), tokens], dim=1)
    tokens = tokens + model.pos_embed
    h, d = model.config.num_heads, model.blocks[0].attn.head_dim
    recorded = []
    for block in model.blocks:
        qkv = block.attn.qkv(block.norm1(tokens))
        heads = []
        for head in range(h):
            q = qkv[:, :, head * d : (head + 1) * d].float()
            k = qkv[:, :, (h + head) * d : (h + head + 1) * d].float()
            scores = q @ k.transpose(1, 2) / math.sqrt(d)
            heads.append(scores.exp() / scores.exp().sum(dim=2, keepdim=True))
        recorded.append(torch.stack(heads, dim=1))
        tokens = block(tokens)
    return torch.stack(recorded)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "changes", [{}, {"class_token": False, "pool": "mean", "qkv_bias": False}]
)
def test_recorded_weights_against_a_walk_by_hand(jitter, fused, dtype, changes):
    model = jitter(ViT(vary(fused=fused, **changes))).eval().to(dtype)
    images = make_images().to(dtype)
    attention = record_attention(model, images)
    with torch.no_grad():
        expected = weights_by_hand(model, images)
    num_tokens = model.config.num_tokens
    assert attention.shape == (3, 2, 4, num_tokens, num_tokens)
    assert attention.dtype == torch.promote_types(dtype, torch.float32)
    torch.testing.assert_close(attention.float(), expected, atol=1e-5, rtol=1e-4)
    ones = torch.ones(3, 2, 4, num_tokens, dtype=attention.dtype)
    torch.testing.assert_close(attention.sum(dim=-1), ones)
    # The heads and blocks differ, so an exchanged axis would have shown.
    assert (attention[0] - attention[1]).abs().max() > 0.05
    assert (attention[:, :, 0] - attention[:, :, 1]).abs().max() > 0.05


def test_recorded_are_the_weights_that_the_written_path_uses(jitter, monkeypatch):
    """Bit for bit: what `attention_weights` gave to the model itself."""
    used = []

    def watched(q, k, mask=None):
        used.append(attention_weights(q, k, mask))
        return used[-1]

    monkeypatch.setattr("vitlib.multi_head.attention_weights", watched)
    model = jitter(ViT(TINY)).eval()
    attention = record_attention(model, make_images())
    assert torch.equal(attention, torch.stack(used))


def test_both_paths_record_the_same(jitter):
    written = jitter(ViT(TINY)).eval()
    fused = ViT(vary(fused=True)).eval()
    fused.load_state_dict(written.state_dict())
    images = make_images()
    torch.testing.assert_close(
        record_attention(written, images), record_attention(fused, images)
    )


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_recording_leaves_the_model_alone(jitter, fused, dtype):
    model = jitter(ViT(vary(fused=fused, **DROPPING))).eval().to(dtype)
    images = make_images().to(dtype)
    pixels = images.clone()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    mine, seen = lambda *_: None, []
    kept = model.blocks[1].attn.qkv.register_forward_hook(mine)
    with torch.no_grad():
        before = model(images)
    watcher = model.register_forward_hook(lambda *passed: seen.append(passed[2]))
    random_state = torch.get_rng_state()
    attention = record_attention(model, images)
    watcher.remove()
    assert torch.equal(torch.get_rng_state(), random_state)
    with torch.no_grad():
        after = model(images)
    (during,) = seen  # one pass, no more
    assert torch.equal(during, before) and torch.equal(after, before)
    assert torch.equal(images, pixels)
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name])
    assert not attention.requires_grad and not during.requires_grad
    hooks = [hook for m in model.modules() for hook in m._forward_hooks.values()]
    assert hooks == [mine]
    kept.remove()


def test_hooks_are_gone_after_an_error(jitter):
    model = jitter(ViT(TINY)).eval()

    def fail(*_):
        raise RuntimeError("stop")

    failing = model.blocks[1].register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="stop"):
        record_attention(model, make_images())
    failing.remove()
    with pytest.raises(ValueError, match="images are 8x12, the model takes 8x15"):
        record_attention(model, torch.randn(2, 3, 8, 12))
    assert not [hook for module in model.modules() for hook in module._forward_hooks]


@pytest.mark.parametrize("fused", [False, True])
def test_autocast_does_not_round_the_weights(jitter, fused):
    model = jitter(ViT(vary(fused=fused))).eval()
    images = make_images()
    with torch.autocast("cpu", torch.bfloat16):
        attention = record_attention(model, images)
        with torch.no_grad():
            tokens = model.patch_embed(images)
            tokens = torch.cat([model.cls_token.expand(2, -1, -1), tokens], dim=1)
            first = model.blocks[0]
            qkv = first.attn.qkv(first.norm1(tokens + model.pos_embed))
    assert qkv.dtype == torch.bfloat16 and attention.dtype == torch.float32
    q, k, _ = qkv.float().view(2, 7, 3, 4, 6).permute(2, 0, 3, 1, 4)
    torch.testing.assert_close(attention[0], attention_weights(q, k))


def test_moving_the_patches_moves_the_weights(jitter):
    """Without positions, two exchanged patches are two exchanged tokens."""
    model = jitter(ViT(TINY)).eval()
    with torch.no_grad():
        model.pos_embed.zero_()
    images = make_images()
    moved = images.clone()
    moved[:, :, :4, :5], moved[:, :, 4:, 10:] = (
        images[:, :, 4:, 10:],
        images[:, :, :4, :5],
    )
    order = [0, 6, 2, 3, 4, 5, 1]
    expected = record_attention(model, images)[:, :, :, order][..., order]
    torch.testing.assert_close(record_attention(model, moved), expected)


def test_equal_tokens_share_their_attention(jitter):
    """A grey image without positions: all patches are alike, so are their shares."""
    model = jitter(ViT(vary(class_token=False, pool="mean"))).eval()
    with torch.no_grad():
        model.pos_embed.zero_()
    attention = record_attention(model, torch.ones(2, 3, 8, 15))
    torch.testing.assert_close(attention, torch.full_like(attention, 1 / 6))


# ---- rollout ---------------------------------------------------------------------


def test_rollout_of_two_blocks_by_hand():
    """Two heads, three tokens; the second block looks through the first."""
    first = torch.tensor(
        [
            [[1.0, 0, 0], [0, 0, 1], [0.5, 0.5, 0]],
            [[0.0, 1, 0], [0, 1, 0], [0.5, 0.5, 0]],
        ]
    )
    second = torch.tensor(
        [
            [[0.0, 0, 1], [1, 0, 0], [0, 0, 1]],
            [[0.0, 0, 1], [0, 0, 1], [0, 0, 1]],
        ]
    )
    # Means over heads, half of them and half the identity:
    # first  [[.75, .25, 0], [0, .75, .25], [.25, .25, .5]]
    # second [[.5, 0, .5], [.25, .5, .25], [0, 0, 1]]
    expected = [
        [0.5 * 0.75 + 0.5 * 0.25, 0.5 * 0.25 + 0.5 * 0.25, 0.5 * 0.5],
        [
            0.25 * 0.75 + 0.25 * 0.25,
            0.25 * 0.25 + 0.5 * 0.75 + 0.25 * 0.25,
            0.5 * 0.25 + 0.25 * 0.5,
        ],
        [0.25, 0.25, 0.5],
    ]
    attention = torch.stack([first, second])[:, None]  # (2, 1, 2, 3, 3)
    torch.testing.assert_close(attention_rollout(attention), torch.tensor([expected]))


def test_rollout_against_loops():
    attention = make_attention(3, 2, 4, 5)
    expected = torch.zeros(2, 5, 5)
    for image in range(2):
        table = torch.eye(5)
        for block in range(3):
            mean = sum(attention[block, image, head] for head in range(4)) / 4
            new = torch.zeros(5, 5)
            for i in range(5):
                for j in range(5):
                    for via in range(5):
                        share = (mean[i, via] + (i == via)) / 2
                        new[i, j] += share * table[via, j]
            table = new
        expected[image] = table
    torch.testing.assert_close(attention_rollout(attention), expected)


@pytest.mark.parametrize("depth", [1, 4])
def test_who_looks_only_at_itself_stays_itself(depth):
    attention = torch.eye(5).expand(depth, 2, 3, 5, 5)
    assert torch.equal(attention_rollout(attention), torch.eye(5).expand(2, 5, 5))


@pytest.mark.parametrize("depth", [1, 4])
def test_uniform_attention_halves_what_a_token_keeps(depth):
    attention = torch.full((depth, 2, 3, 5, 5), 1 / 5)
    own = 0.5**depth
    expected = own * torch.eye(5) + (1 - own) / 5
    torch.testing.assert_close(attention_rollout(attention), expected.expand(2, 5, 5))


@given(
    sizes=st.tuples(*[st.integers(1, 4)] * 4), sharpness=st.sampled_from([0.0, 1, 30])
)
def test_rollout_of_any_attention(sizes, sharpness):
    depth, b, h, n = sizes
    attention = make_attention(depth, b, h, n, sharpness=sharpness)
    rollout = attention_rollout(attention)
    torch.testing.assert_close(rollout.sum(dim=-1), torch.ones(b, n))
    # Nobody gives up more than half of what it has in any block.
    assert (rollout.diagonal(dim1=1, dim2=2) >= 0.5**depth - 1e-5).all()
    # The order of heads does not matter; moved tokens move both axes.
    order = torch.randperm(n)
    moved = attention.flip(2)[..., order, :][..., order]
    torch.testing.assert_close(attention_rollout(moved), rollout[:, order][:, :, order])
    # The images do not mix.
    torch.testing.assert_close(attention_rollout(attention[:, -1:]), rollout[-1:])


@given(depth=st.integers(1, 4), n=st.integers(2, 5))
def test_rollout_cannot_see_the_future(depth, n):
    """If no block lets token i look at later ones, neither does their product."""
    scores = torch.randn(depth, 2, 3, n, n)
    later = torch.ones(n, n, dtype=torch.bool).triu(1)
    rollout = attention_rollout(scores.masked_fill(later, -math.inf).softmax(dim=-1))
    assert (rollout[:, later] == 0).all() and (rollout[:, ~later] > 0).all()


def test_rollout_goes_from_the_first_block_to_the_last():
    """Block 1 brings token 2 to token 1, block 2 brings token 1 to token 0."""
    first, second = torch.eye(3), torch.eye(3)
    first[1], second[0] = torch.tensor([0.0, 0, 1]), torch.tensor([0.0, 1, 0])
    attention = torch.stack([first, second])[:, None, None]
    assert attention_rollout(attention)[0, 0, 2] == 0.25
    assert attention_rollout(attention.flip(0))[0, 0, 2] == 0
    assert attention_rollout(attention[:1])[0, 1, 2] == 0.5


@pytest.mark.parametrize("dtype", [*DTYPES, torch.float16])
def test_rollout_of_other_floats(dtype):
    attention = make_attention(12, 2, 3, 50)
    rollout = attention_rollout(attention.to(dtype))
    assert rollout.dtype == torch.promote_types(dtype, torch.float32)
    ones = torch.ones(2, 50, dtype=rollout.dtype)
    torch.testing.assert_close(rollout.sum(dim=-1), ones)
    exact = attention_rollout(attention.double()).float()
    torch.testing.assert_close(rollout.float(), exact, atol=1e-4, rtol=1e-2)


# ---- class-token maps ------------------------------------------------------------


@pytest.mark.parametrize("leading", [(), (2,), (3, 2, 4)])
def test_a_map_is_the_row_of_the_class_token(leading):
    attention = make_attention(*leading, 7)
    maps = cls_map(attention, (2, 3))
    assert maps.shape == (*leading, 2, 3)
    for row in range(2):
        for col in range(3):
            key = 1 + 3 * row + col
            assert torch.equal(maps[..., row, col], attention[..., 0, key])


def test_a_square_grid_is_one_number():
    attention = make_attention(2, 10)
    assert torch.equal(cls_map(attention, 3), cls_map(attention, (3, 3)))
    table = torch.randn(1, 10, 4)
    assert torch.equal(
        position_similarity(table, 3), position_similarity(table, (3, 3))
    )
    attention = make_attention(1, 1, 1, 10)
    assert torch.equal(
        mean_attention_distance(attention, 3, 2),
        mean_attention_distance(attention, (3, 3), (2, 2)),
    )


def test_without_a_class_token_the_mean_over_queries_is_the_map():
    """The error's advice works, and is what such a model's head reads."""
    attention = make_attention(2, 6)
    message = re.escape("attention.mean(dim=-2).unflatten(-1, (2, 3))")
    with pytest.raises(ValueError, match=message):
        cls_map(attention, (2, 3))
    advised = attention.mean(dim=-2).unflatten(-1, (2, 3))
    assert advised.shape == (2, 2, 3)
    assert advised[1, 1, 0] == pytest.approx(attention[1, :, 3].mean().item())


# ---- positions -------------------------------------------------------------------


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("dtype", DTYPES)
def test_similarity_against_loops(first, dtype):
    table = nn.Parameter(torch.randn(1, first + 6, 8).to(dtype))
    similarity = position_similarity(table, (2, 3))
    assert similarity.shape == (2, 3, 2, 3) and not similarity.requires_grad
    assert similarity.dtype == torch.promote_types(dtype, torch.float32)
    rows = table[0].detach().to(similarity.dtype)
    for row in range(2):
        for col in range(3):
            for row2 in range(2):
                for col2 in range(3):
                    one, other = (
                        rows[first + 3 * row + col],
                        rows[first + 3 * row2 + col2],
                    )
                    expected = (one @ other) / (one.norm() * other.norm())
                    torch.testing.assert_close(
                        similarity[row, col, row2, col2], expected, atol=1e-6, rtol=1e-5
                    )


@given(
    grid=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    e=st.integers(1, 5),
    scale=st.sampled_from([1e-3, 1.0, 1e3]),
)
def test_similarity_of_any_table(grid, e, scale):
    rows, cols = grid
    table = torch.randn(1, rows * cols, e)
    similarity = position_similarity(scale * table, grid)
    # The lengths do not matter, both ways round is the same, 1 with itself.
    torch.testing.assert_close(similarity, position_similarity(table, grid))
    torch.testing.assert_close(similarity, similarity.permute(2, 3, 0, 1))
    itself = similarity.view(rows * cols, -1).diagonal()
    torch.testing.assert_close(itself, torch.ones(rows * cols))
    assert similarity.abs().max() <= 1 + 1e-5


def test_opposite_and_unrelated_positions():
    table = torch.tensor([[[2.0, 0], [-1, 0], [0, 3], [0, 0]]])
    similarity = position_similarity(table, (2, 2))
    assert similarity[0, 0].tolist() == [[1, -1], [0, 0]]
    assert similarity[1, 1].tolist() == [[0, 0], [0, 0]]


# ---- distance --------------------------------------------------------------------


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("dtype", DTYPES)
def test_distance_against_loops(first, dtype):
    """A grid of 2 x 3 patches, each 4 pixels high and 5 wide."""
    attention = make_attention(3, 2, 4, first + 6).to(dtype)
    distance = mean_attention_distance(attention, (2, 3), (4, 5))
    assert distance.shape == (3, 4)
    assert distance.dtype == torch.promote_types(dtype, torch.float32)
    attention = attention.double()
    for block in range(3):
        for head in range(4):
            per_query = []
            for image in range(2):
                for i in range(6):
                    row = attention[block, image, head, first + i].tolist()[first:]
                    total = 0.0
                    for j in range(6):
                        down, across = 4 * (i // 3 - j // 3), 5 * (i % 3 - j % 3)
                        total += row[j] / sum(row) * math.hypot(down, across)
                    per_query.append(total)
            mean = sum(per_query) / len(per_query)
            assert distance[block, head].item() == pytest.approx(mean, rel=1e-5)


def test_who_looks_only_at_itself_looks_nowhere():
    """Exactly 0, on a large grid too."""
    attention = torch.eye(196).expand(1, 2, 3, 196, 196)
    assert torch.equal(mean_attention_distance(attention, 14, 16), torch.zeros(1, 3))


def test_looking_one_patch_to_the_right_or_down():
    right, down = torch.zeros(6, 6), torch.zeros(6, 6)
    for i in range(6):
        right[i, i + 1 if i % 3 < 2 else i - 1] = 1
        down[i, (i + 3) % 6] = 1
    attention = torch.stack([right, down])[None, None]
    assert mean_attention_distance(attention, (2, 3), (4, 5)).tolist() == [[5, 4]]
    assert mean_attention_distance(attention, (2, 3), 7).tolist() == [[7, 7]]


def test_uniform_attention_has_the_mean_distance_of_the_grid():
    attention = torch.full((1, 1, 1, 5, 5), 1 / 5)
    # A 1 x 4 grid with a class token: 4*0 + 6*1 + 4*2 + 2*3 patches over 16 pairs.
    distance = mean_attention_distance(attention, (1, 4), 8)
    assert distance.item() == pytest.approx(8 * 20 / 16)


def test_what_goes_to_the_class_token_does_not_count():
    """Half of every row moves to the class token: the distance stays the same."""
    patches = make_attention(2, 2, 3, 6)
    attention = torch.zeros(2, 2, 3, 7, 7)
    attention[..., 0] = 0.5
    attention[..., 1:, 1:] = 0.5 * patches
    attention[..., 0, 1:] = 0.5 * torch.eye(6)[5]
    torch.testing.assert_close(
        mean_attention_distance(attention, (2, 3), 4),
        mean_attention_distance(patches, (2, 3), 4),
    )


def test_queries_that_see_the_class_token_alone():
    attention = torch.zeros(1, 1, 2, 5, 5)
    attention[..., 0] = 1
    # In head 1 one patch of the 2 x 2 looks at the one to its right.
    attention[0, 0, 1, 1] = torch.eye(5)[2]
    distance = mean_attention_distance(attention, (2, 2), 3)
    assert distance[0, 0].isnan() and distance[0, 1] == 3


@given(
    grid=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    patch=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    first=st.integers(0, 1),
)
def test_distance_of_any_attention(grid, patch, first):
    (rows, cols), (p1, p2) = grid, patch
    attention = make_attention(2, 2, 3, first + rows * cols)
    distance = mean_attention_distance(attention, grid, patch)
    longest = math.hypot((rows - 1) * p1, (cols - 1) * p2)
    assert ((distance >= 0) & (distance <= longest + 1e-3)).all()
    # Twice the pixels, twice the distance.
    double = mean_attention_distance(attention, grid, (2 * p1, 2 * p2))
    torch.testing.assert_close(double, 2 * distance)


# ---- deletion --------------------------------------------------------------------

ORDER = torch.tensor([[4, 0, 5, 2, 1, 3], [2, 3, 1, 0, 4, 5]])


@pytest.mark.parametrize("count", range(7))
@pytest.mark.parametrize("fill", ["mean", 0.25, 0, -3])
@pytest.mark.parametrize("dtype", DTYPES)
def test_deletion_pixel_by_pixel(count, fill, dtype):
    """Two images of 8 x 15 pixels, patches 4 high and 5 wide."""
    images = make_images().to(dtype)
    pixels = images.clone()
    covered = delete_patches(images, ORDER, count, (4, 5), fill)
    assert covered.dtype == dtype and covered.shape == images.shape
    assert torch.equal(images, pixels)
    for image in range(2):
        gone = ORDER[image, :count].tolist()
        for channel in range(3):
            colour = images[image, channel].mean() if fill == "mean" else fill
            expected = images[image, channel].clone()
            for y in range(8):
                for x in range(15):
                    if y // 4 * 3 + x // 5 in gone:
                        expected[y, x] = colour
            torch.testing.assert_close(covered[image, channel], expected)
            kept = [p for p in range(6) if p not in gone]
            for p in kept:
                top, left = p // 3 * 4, p % 3 * 5
                spot = (image, channel, slice(top, top + 4), slice(left, left + 5))
                assert torch.equal(covered[spot], images[spot])


def test_the_mean_is_the_rule():
    images = make_images()
    assert torch.equal(
        delete_patches(images, ORDER, 2, (4, 5)),
        delete_patches(images, ORDER, 2, (4, 5), "mean"),
    )


@given(
    grid=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    patch=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    dtype=st.sampled_from([torch.int64, torch.int32, torch.uint8]),
    data=st.data(),
)
def test_deletion_in_any_order(grid, patch, dtype, data):
    (rows, cols), (p1, p2) = grid, patch
    n = rows * cols
    count = data.draw(st.integers(0, n))
    images = torch.rand(2, 1, rows * p1, cols * p2)
    order = torch.stack([torch.randperm(n) for _ in range(2)]).to(dtype)
    covered = delete_patches(images, order, count, patch, -1)
    assert (covered == -1).sum(dim=(1, 2, 3)).tolist() == [count * p1 * p2] * 2
    # A longer deletion covers what a shorter one does.
    longer = delete_patches(images, order, n, patch, -1)
    assert (longer == -1).all()
    # The order inside the deleted ones does not matter.
    shuffled = torch.cat([order[:, :count].flip(1), order[:, count:]], dim=1)
    assert torch.equal(delete_patches(images, shuffled, count, patch, -1), covered)


def test_from_weights_to_a_deletion(jitter):
    """The steps fit together: the most attended patch is the first to go."""
    model = jitter(ViT(TINY)).eval()
    images = make_images()
    rollout = attention_rollout(record_attention(model, images))
    maps = cls_map(rollout, TINY.grid_size)
    order = maps.flatten(1).argsort(dim=1, descending=True)
    covered = delete_patches(images, order, 1, TINY.patch_size, 9.0)
    shares = F.avg_pool2d((covered == 9).float().mean(dim=1), (4, 5))
    assert torch.equal(shares, (maps == maps.amax(dim=(1, 2), keepdim=True)).float())


# ---- errors ----------------------------------------------------------------------

ATTENTION = torch.full((1, 2, 3, 7, 7), 1 / 7)
IMAGES = torch.ones(2, 3, 8, 15)
SCALED = ATTENTION.clone()
SCALED[0, 0, 1] *= 0.25
SCALED[0, 0, 1, 1:] *= 2
UNKNOWN = torch.nan * torch.ones(1, 1, 1, 2, 2)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: record_attention(nn.Linear(2, 2), IMAGES),
            TypeError,
            "model is a Linear: give a vitlib.ViT, such as "
            "vitlib.checkpoints.load_pretrained returns",
        ),
        (
            lambda: record_attention(ViT(TINY), IMAGES),
            ValueError,
            "the model is in training mode: call model.eval() first",
        ),
        (
            lambda: record_attention(ViT(TINY).eval(), IMAGES[0]),
            ValueError,
            "images has shape (3, 8, 15): give 4 axes, (b, c, H, W)",
        ),
        (
            lambda: attention_rollout([ATTENTION]),
            TypeError,
            "attention is a list: give a torch.Tensor",
        ),
        (
            lambda: attention_rollout(ATTENTION[0]),
            ValueError,
            "attention has shape (2, 3, 7, 7): give 5 axes, (depth, b, h, i, j)",
        ),
        (
            lambda: attention_rollout(ATTENTION[..., 1:]),
            ValueError,
            "attention has shape (1, 2, 3, 7, 6): give as many queries as keys and no "
            "empty axis, (depth, b, h, i, j)",
        ),
        (
            lambda: attention_rollout(ATTENTION[:0]),
            ValueError,
            "attention has shape (0, 2, 3, 7, 7): give as many queries as keys and no "
            "empty axis, (depth, b, h, i, j)",
        ),
        (
            lambda: attention_rollout(ATTENTION.long()),
            ValueError,
            "attention is torch.int64: give floats, for pixels attention.float() / 255",
        ),
        (
            lambda: attention_rollout(SCALED),
            ValueError,
            "attention: 7 of 42 rows do not sum to 1, the first of them to 0.25: give "
            "weights after the softmax over the keys and before dropout, as "
            "record_attention returns them",
        ),
        (
            lambda: attention_rollout(1.02 * ATTENTION),
            ValueError,
            "attention: 42 of 42 rows do not sum to 1, the first of them to 1.02: give "
            "weights after the softmax over the keys and before dropout, as "
            "record_attention returns them",
        ),
        (
            lambda: mean_attention_distance(UNKNOWN, (1, 2), 4),
            ValueError,
            "attention: 2 of 2 rows do not sum to 1, the first of them to nan: give "
            "weights after the softmax over the keys and before dropout, as "
            "record_attention returns them",
        ),
        (
            lambda: mean_attention_distance(ATTENTION, (2, 2), 4),
            ValueError,
            "attention has 7 tokens, but a grid of 2x2 needs 4, or 5 with a class "
            "token: correct grid_size",
        ),
        (
            lambda: mean_attention_distance(ATTENTION, (2, 3), 0),
            ValueError,
            "patch_size is 0: give a whole number of at least 1",
        ),
        (
            lambda: mean_attention_distance(ATTENTION, (2, 0), 4),
            ValueError,
            "grid_size is 0: give a whole number of at least 1",
        ),
        (
            lambda: cls_map(ATTENTION, 2.5),
            TypeError,
            "grid_size is 2.5: give a whole number",
        ),
        (
            lambda: cls_map(ATTENTION, (2, 4)),
            ValueError,
            "attention has 7 tokens, but a grid of 2x4 needs 8, or 9 with a class "
            "token: correct grid_size",
        ),
        (
            lambda: cls_map(ATTENTION, (1, 7)),
            ValueError,
            "attention has 7 tokens, the 1x7 patches and no class token: such a model "
            "reads the mean of its tokens, so give attention.mean(dim=-2).unflatten("
            "-1, (1, 7)) to see what all queries attend to",
        ),
        (
            lambda: cls_map(ATTENTION[0, 0, 0, 0], (2, 3)),
            ValueError,
            "attention has shape (7,): give at least 2 axes, (..., i, j)",
        ),
        (
            lambda: cls_map(ATTENTION[..., :1, :], (2, 3)),
            ValueError,
            "attention has shape (1, 2, 3, 1, 7): give as many queries as keys and no "
            "empty axis, (..., i, j)",
        ),
        (
            lambda: position_similarity(torch.ones(6, 8), (2, 3)),
            ValueError,
            "pos_embed has shape (6, 8): give 3 axes, (1, T, e)",
        ),
        (
            lambda: position_similarity(torch.ones(2, 6, 8), (2, 3)),
            ValueError,
            "pos_embed has shape (2, 6, 8): give one table, (1, T, e)",
        ),
        (
            lambda: position_similarity(torch.ones(1, 6, 0), (2, 3)),
            ValueError,
            "pos_embed has shape (1, 6, 0): give one table, (1, T, e)",
        ),
        (
            lambda: position_similarity(torch.ones(1, 8, 4), (2, 3)),
            ValueError,
            "pos_embed has 8 tokens, but a grid of 2x3 needs 6, or 7 with a class "
            "token: correct grid_size",
        ),
        (
            lambda: position_similarity([1], (2, 3)),
            TypeError,
            "pos_embed is a list: give a torch.Tensor",
        ),
        (
            lambda: position_similarity(torch.ones(1, 6, 4), (2, 3, 4)),
            ValueError,
            "grid_size is (2, 3, 4): give one number or a pair (height, width)",
        ),
        (
            lambda: position_similarity(torch.ones(1, 6, 4).int(), (2, 3)),
            ValueError,
            "pos_embed is torch.int32: give floats, for pixels pos_embed.float() / 255",
        ),
        (
            lambda: delete_patches(IMAGES[0], ORDER, 2, (4, 5)),
            ValueError,
            "images has shape (3, 8, 15): give 4 axes, (b, c, H, W)",
        ),
        (
            lambda: delete_patches(IMAGES.byte(), ORDER, 2, (4, 5)),
            ValueError,
            "images is torch.uint8: give floats, for pixels images.float() / 255",
        ),
        (
            lambda: delete_patches(IMAGES, ORDER, 2, 0),
            ValueError,
            "patch_size is 0: give a whole number of at least 1",
        ),
        (
            lambda: delete_patches(IMAGES, ORDER, 2, (4, 4)),
            ValueError,
            "image width 15 is not divisible by patch_size 4: crop to 12 or pad to 16",
        ),
        (
            lambda: delete_patches(IMAGES, ORDER.float(), 2, (4, 5)),
            ValueError,
            "order is torch.float32: give whole numbers, as argsort returns them",
        ),
        (
            lambda: delete_patches(IMAGES, ORDER > 2, 2, (4, 5)),
            ValueError,
            "order is torch.bool: give whole numbers, as argsort returns them",
        ),
        (
            lambda: delete_patches(IMAGES, ORDER + 0j, 2, (4, 5)),
            ValueError,
            "order is torch.complex64: give whole numbers, as argsort returns them",
        ),
        (
            lambda: delete_patches(IMAGES, ORDER[0], 2, (4, 5)),
            ValueError,
            "order has shape (6,): give 2 axes, (b, n)",
        ),
        (
            lambda: delete_patches(IMAGES, ORDER[:1], 2, (4, 5)),
            ValueError,
            "order has shape (1, 6): give (2, 6), every patch of every image",
        ),
        (
            lambda: delete_patches(IMAGES, ORDER[:, :4], 2, (4, 5)),
            ValueError,
            "order has shape (2, 4): give (2, 6), every patch of every image",
        ),
        (
            lambda: delete_patches(IMAGES, ORDER.clamp(max=4), 2, (4, 5)),
            ValueError,
            "order: 2 of 2 rows are no permutation: give every number from 0 to 5 "
            "once, as argsort does",
        ),
        (
            lambda: delete_patches(
                IMAGES, torch.stack([ORDER[0], ORDER[1] + 1]), 2, (4, 5)
            ),
            ValueError,
            "order: 1 of 2 rows are no permutation: give every number from 0 to 5 "
            "once, as argsort does",
        ),
        (
            lambda: delete_patches(IMAGES, ORDER, 7, (4, 5)),
            ValueError,
            "count is 7: an image has 2*3 = 6 patches",
        ),
        (
            lambda: delete_patches(IMAGES, ORDER, -1, (4, 5)),
            ValueError,
            "count is -1: give a whole number of at least 0",
        ),
        (
            lambda: delete_patches(IMAGES, ORDER, 0.5, (4, 5)),
            TypeError,
            "count is 0.5: give a whole number",
        ),
        (
            lambda: delete_patches(IMAGES, ORDER, 2, (4, 5), "black"),
            ValueError,
            "fill is 'black': give 'mean' or a number",
        ),
        (
            lambda: delete_patches(IMAGES, ORDER, 2, (4, 5), math.nan),
            ValueError,
            "fill is nan: give a finite number greater than -inf",
        ),
        (
            lambda: delete_patches(IMAGES.half(), ORDER, 2, (4, 5), -70_000),
            ValueError,
            "fill is -70000.0: give a number that torch.float16 can hold",
        ),
        (
            lambda: delete_patches(IMAGES, ORDER, 2, (4, 5), None),
            TypeError,
            "fill is None: give a number",
        ),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        call()


def test_a_part_in_training_mode_is_refused():
    model = ViT(TINY).eval()
    model.blocks[1].attn.attn_drop.train()
    with pytest.raises(ValueError, match="the model is in training mode"):
        record_attention(model, IMAGES)
