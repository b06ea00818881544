"""Answers to the exercises of chapter 11."""

import copy

import torch
import torch.nn.functional as F
from torch import nn

from mutants.answers import right, wrong
from vitlib.checks.transfer import features, forgotten, freeze, head_for

# head_for


@right(head_for)
def filled_row_by_row(weight, bias, old_names, new_names):
    rows = weight.new_zeros(len(new_names), weight.shape[1])
    shifts = bias.new_zeros(len(new_names))
    for place, name in enumerate(new_names):
        if name in old_names:
            rows[place] = weight[old_names.index(name)]
            shifts[place] = bias[old_names.index(name)]
    return rows, shifts


@right(head_for)
def a_row_of_zeros_behind(weight, bias, old_names, new_names):
    known = {name: place for place, name in enumerate(old_names)}
    places = [known.get(name, len(old_names)) for name in new_names]
    return F.pad(weight, (0, 0, 0, 1))[places], F.pad(bias, (0, 1))[places]


@right(head_for)
def by_a_matrix(weight, bias, old_names, new_names):
    same = [[float(old == new) for old in old_names] for new in new_names]
    choose = torch.tensor(same, dtype=weight.dtype)  # (new, old)
    return [choose @ weight, choose @ bias]


@wrong(head_for, "by place")
def first_rows_kept(weight, bias, old_names, new_names):
    rows = weight.new_zeros(len(new_names), weight.shape[1])
    shifts = bias.new_zeros(len(new_names))
    count = min(len(new_names), len(old_names))
    rows[:count], shifts[:count] = weight[:count], bias[:count]
    return rows, shifts


@wrong(head_for, "in the old order")
def sorted_by_old_place(weight, bias, old_names, new_names):
    kept = [place for place, name in enumerate(old_names) if name in new_names]
    missing = len(new_names) - len(kept)
    return (
        torch.cat([weight[kept], weight.new_zeros(missing, weight.shape[1])]),
        torch.cat([bias[kept], bias.new_zeros(missing)]),
    )


@wrong(head_for, "known ones first")
def new_ones_appended(weight, bias, old_names, new_names):
    kept = [old_names.index(name) for name in new_names if name in old_names]
    missing = len(new_names) - len(kept)
    rows = torch.cat([weight[kept], weight.new_zeros(missing, weight.shape[1])])
    return rows, torch.cat([bias[kept], bias.new_zeros(missing)])


@wrong(head_for, "bias of zeros")
def only_rows(weight, bias, old_names, new_names):
    rows, shifts = filled_row_by_row(weight, bias, old_names, new_names)
    return rows, torch.zeros_like(shifts)


@wrong(head_for, "nothing kept")
def fresh_head(weight, bias, old_names, new_names):
    count = len(new_names)
    return weight.new_zeros(count, weight.shape[1]), bias.new_zeros(count)


@wrong(head_for, "mean for new ones")
def the_mean_row(weight, bias, old_names, new_names):
    places = [old_names.index(n) if n in old_names else -1 for n in new_names]
    rows = torch.cat([weight, weight.mean(0, keepdim=True)])
    return rows[places], torch.cat([bias, bias.mean()[None]])[places]


@wrong(head_for, "random")
def random_for_new_ones(weight, bias, old_names, new_names):
    rows, shifts = filled_row_by_row(weight, bias, old_names, new_names)
    for place, name in enumerate(new_names):
        if name not in old_names:
            rows[place] = torch.randn(weight.shape[1])
    return rows, shifts


@wrong(head_for, "row of another class")
def last_old_row_for_new_ones(weight, bias, old_names, new_names):
    places = [old_names.index(n) if n in old_names else -1 for n in new_names]
    return weight[places], bias[places]


@wrong(head_for, "known row")
def normalised_rows(weight, bias, old_names, new_names):
    rows, shifts = filled_row_by_row(weight, bias, old_names, new_names)
    return F.normalize(rows, dim=1), shifts


@wrong(head_for, "shape")
def old_and_new_together(weight, bias, old_names, new_names):
    new = [name for name in new_names if name not in old_names]
    return F.pad(weight, (0, 0, 0, len(new))), F.pad(bias, (0, len(new)))


@wrong(head_for, "crash")
def every_name_is_known(weight, bias, old_names, new_names):
    places = [old_names.index(name) for name in new_names]
    return weight[places], bias[places]


# freeze


@right(freeze)
def off_and_on_again(model, count):
    model.requires_grad_(False)
    depth = len(model.blocks)
    for part in (*model.blocks[depth - count :], model.norm, model.head):
        part.requires_grad_(True)


@right(freeze)
def by_number_in_the_name(model, count):
    first = len(model.blocks) - count
    for name, value in model.named_parameters():
        words = name.split(".")
        block = words[0] == "blocks" and int(words[1]) >= first
        value.requires_grad = block or words[0] in ("norm", "head")


@right(freeze)
def by_identity(model, count):
    learning = {id(v) for m in (model.norm, model.head) for v in m.parameters()}
    for block in list(reversed(model.blocks))[:count]:
        learning |= {id(value) for value in block.parameters()}
    for value in model.parameters():
        value.requires_grad_(id(value) in learning)
    return model


def woken(model, parts):
    model.requires_grad_(False)
    for part in parts:
        part.requires_grad_(True)


@wrong(freeze, "zero means all")
def minus_zero(model, count):
    woken(model, [*model.blocks[-count:], model.norm, model.head])


@wrong(freeze, "from the front")
def first_blocks(model, count):
    woken(model, [*model.blocks[:count], model.norm, model.head])


@wrong(freeze, "no norm")
def norm_forgotten(model, count):
    woken(model, [*model.blocks[len(model.blocks) - count :], model.head])


@wrong(freeze, "no head")
def head_forgotten(model, count):
    woken(model, [*model.blocks[len(model.blocks) - count :], model.norm])


@wrong(freeze, "head and norm only")
def probe(model, count):
    woken(model, [model.norm, model.head])


@wrong(freeze, "nothing frozen", "CSCYQJ/MICCAI23-ProtoContra-SFDA issue 18")
def attribute_of_a_module(model, count):
    for block in model.blocks[: len(model.blocks) - count]:
        block.requires_grad = False
    model.patch_embed.requires_grad = False


@wrong(freeze, "nothing frozen")
def evaluation_mode(model, count):
    model.eval()
    for part in (*model.blocks[len(model.blocks) - count :], model.norm, model.head):
        part.train()


@wrong(freeze, "compared as text")
def sorted_names(model, count):
    model.requires_grad_(False)
    for name, value in model.named_parameters():
        if name >= f"blocks.{len(model.blocks) - count}" and name[0] == "b":
            value.requires_grad = True
    model.norm.requires_grad_(True)
    model.head.requires_grad_(True)


@wrong(freeze, "stays frozen")
def only_switches_off(model, count):
    for name, value in model.named_parameters():
        words = name.split(".")
        if words[0] == "blocks" and int(words[1]) < len(model.blocks) - count:
            value.requires_grad = False
        if words[0] in ("patch_embed", "cls_token", "pos_embed"):
            value.requires_grad = False


@wrong(freeze, "never frozen")
def only_switches_on(model, count):
    for part in (*model.blocks[len(model.blocks) - count :], model.norm, model.head):
        part.requires_grad_(True)


@wrong(freeze, "the other way round")
def inverted(model, count):
    by_number_in_the_name(model, count)
    for value in model.parameters():
        value.requires_grad = not value.requires_grad


@wrong(freeze, "one block too far")
def counted_from_one(model, count):
    first = len(model.blocks) - count + 1
    woken(model, [*model.blocks[first:], model.norm, model.head])


@wrong(freeze, "learning")
def norms_of_all_blocks(model, count):
    by_number_in_the_name(model, count)
    for name, value in model.named_parameters():
        if "norm" in name:
            value.requires_grad = True


@wrong(freeze, "learning")
def positions_forgotten(model, count):
    for part in (model.patch_embed, *model.blocks[: len(model.blocks) - count]):
        part.requires_grad_(False)


@wrong(freeze, "frozen")
def biases_frozen(model, count):
    by_number_in_the_name(model, count)
    for name, value in model.named_parameters():
        if name.startswith("blocks") and name.endswith("bias"):
            value.requires_grad = False


# features


@right(features)
def by_a_copy(model, images):
    body = copy.deepcopy(model).eval()
    body.head = nn.Identity()
    with torch.no_grad():
        return body(images)


@right(features)
def head_lent_and_given_back(model, images):
    head, mode = model.head, model.training
    model.head = nn.Identity()
    model.eval()
    try:
        with torch.no_grad():
            return model(images)
    finally:
        model.head = head
        model.train(mode)


@right(features)
def by_a_hook(model, images):
    seen, mode = [], model.training
    handle = model.norm.register_forward_hook(lambda norm, x, out: seen.append(out))
    model.eval()(images)
    handle.remove()
    model.train(mode)
    return seen[0].detach()


@right(features)
@torch.inference_mode()
def image_by_image(model, images):
    mode = model.training
    rows = [by_a_copy(model, image[None])[0] for image in images]
    assert model.training == mode
    return torch.stack(rows)


@wrong(features, "random")
def dropout_left_on(model, images):
    body = copy.deepcopy(model)
    body.head = nn.Identity()
    with torch.no_grad():
        return body(images)


@wrong(features, "graph kept")
def gradients_left_on(model, images):
    body = copy.deepcopy(model).eval()
    body.head = nn.Identity()
    return body(images)


@wrong(features, "head lost")
def head_taken_off(model, images):
    mode = model.training
    model.head = nn.Identity()
    with torch.no_grad():
        result = model.eval()(images)
    model.train(mode)
    return result


@wrong(features, "mode")
def left_in_evaluation(model, images):
    seen = []
    handle = model.norm.register_forward_hook(lambda norm, x, out: seen.append(out))
    with torch.no_grad():
        model.eval()(images)
    handle.remove()
    return seen[0]


@wrong(features, "mode")
def left_in_training(model, images):
    result = by_a_copy(model, images)
    model.train()
    return result


@wrong(features, "scores")
def through_the_head(model, images):
    mode = model.training
    with torch.no_grad():
        scores = model.eval()(images)
    model.train(mode)
    return scores


@wrong(features, "before the norm")
def last_block(model, images):
    seen, mode = [], model.training
    handle = model.norm.register_forward_hook(lambda norm, x, out: seen.append(x[0]))
    with torch.no_grad():
        model.eval()(images)
    handle.remove()
    model.train(mode)
    return seen[0]


@wrong(features, "hook left")
def hook_stays(model, images):
    seen, mode = [], model.training
    model.head.register_forward_pre_hook(lambda head, x: seen.append(x[0]))
    with torch.no_grad():
        model.eval()(images)
    model.train(mode)
    return seen[0]


@wrong(features, "frozen for good")
def frozen_to_save_memory(model, images):
    model.requires_grad_(False)
    return by_a_copy(model, images)


@wrong(features, "shape")
def all_tokens(model, images):
    seen = []
    body = copy.deepcopy(model).eval()
    body.blocks[-1].register_forward_hook(lambda block, x, out: seen.append(out))
    with torch.no_grad():
        body(images)
        return body.norm(seen[0])


@wrong(features, "crash")
def children_in_a_row(model, images):
    body = nn.Sequential(*list(model.children())[:-1]).eval()
    with torch.no_grad():
        return body(images)


@wrong(features, "class token whatever pool says")
def by_its_parts(model, images):
    body = copy.deepcopy(model).eval()
    with torch.no_grad():
        x = body.patch_embed(images)
        x = torch.cat([body.cls_token.expand(len(x), -1, -1), x], dim=1)
        x = x + body.pos_embed
        for block in body.blocks:
            x = block(x)
        return body.norm(x)[:, 0]


@wrong(features, "norm before the mean")
def norm_then_mean(model, images):
    body = copy.deepcopy(model).eval()
    kept = []
    body.blocks[-1].register_forward_hook(lambda block, x, out: kept.append(out))
    with torch.no_grad():
        body(images)
        tokens = body.norm(kept[0])
    return tokens[:, 0] if body.config.pool == "cls" else tokens[:, 1:].mean(dim=1)


# forgotten


def share(scores, labels):
    return (scores.argmax(1) == labels).double().mean()


def ones(body):
    return torch.cat([body, torch.ones(len(body), 1)], dim=1)


def solved(body, labels):
    targets = F.one_hot(labels).to(body.dtype)
    return torch.linalg.pinv(ones(body)) @ targets


@right(forgotten)
def by_the_pseudo_inverse(before, after, head, labels):
    even, odd = slice(0, None, 2), slice(1, None, 2)
    result = []
    for heads in (
        (head, head),
        [solved(x[even], labels[even]) for x in (before, after)],
    ):
        old, new = (
            share(ones(x[odd]) @ matrix, labels[odd])
            for x, matrix in zip((before, after), heads, strict=True)
        )
        result.append(old - new)
    return torch.stack(result)


@right(forgotten)
def by_normal_equations(before, after, head, labels):
    def with_new(body):
        x = ones(body.double()).double()
        y = F.one_hot(labels).double()
        gram = x[::2].T @ x[::2]
        return share(
            x[1::2] @ torch.linalg.solve(gram, x[::2].T @ y[::2]), labels[1::2]
        )

    def with_old(body):
        return share(ones(body)[1::2] @ head, labels[1::2])

    return (
        with_old(before) - with_old(after),
        with_new(before) - with_new(after),
    )


@right(forgotten)
def counted_image_by_image(before, after, head, labels):
    odd = range(1, len(labels), 2)
    counts = []
    for x in (before, after):
        heads = head, solved(x[0::2], labels[0::2])
        for matrix in heads:
            scores = x @ matrix[:-1] + matrix[-1]
            counts.append(sum(int(scores[i].argmax() == labels[i]) for i in odd))
    a, b, c, d = counts
    return [(a - c) / len(odd), (b - d) / len(odd)]


def measured(before, after, head, labels, fit=slice(0, None, 2), on=slice(1, None, 2)):
    lost = []
    for matrices in (
        (head, head),
        (solved(before[fit], labels[fit]), solved(after[fit], labels[fit])),
    ):
        shares = [
            share(ones(x[on]) @ matrix, labels[on])
            for x, matrix in zip((before, after), matrices, strict=True)
        ]
        lost.append(shares[0] - shares[1])
    return torch.stack(lost)


@wrong(forgotten, "measured where it was fitted")
def nothing_held_out(before, after, head, labels):
    return measured(before, after, head, labels, slice(None), slice(None))


@wrong(forgotten, "measured where it was fitted")
def fitted_on_all(before, after, head, labels):
    return measured(before, after, head, labels, slice(None))


@wrong(forgotten, "rows swapped")
def even_and_odd_swapped(before, after, head, labels):
    return measured(before, after, head, labels, slice(1, None, 2), slice(0, None, 2))


@wrong(forgotten, "old head on all rows")
def old_head_everywhere(before, after, head, labels):
    old = measured(before, after, head, labels, on=slice(None))[0]
    return torch.stack([old, measured(before, after, head, labels)[1]])


@wrong(forgotten, "one head for both")
def fitted_to_the_old_body(before, after, head, labels):
    matrix = solved(before[::2], labels[::2])
    old, new = (share(ones(x[1::2]) @ matrix, labels[1::2]) for x in (before, after))
    return torch.stack([measured(before, after, head, labels)[0], old - new])


@wrong(forgotten, "sign")
def gains_not_losses(before, after, head, labels):
    return measured(after, before, head, labels)


@wrong(forgotten, "no difference")
def what_is_left(before, after, head, labels):
    matrix = solved(after[::2], labels[::2])
    x, y = ones(after[1::2]), labels[1::2]
    return torch.stack([share(x @ head, y), share(x @ matrix, y)])


@wrong(forgotten, "with a new head")
def old_head_twice(before, after, head, labels):
    old = measured(before, after, head, labels)[0]
    return torch.stack([old, old])


@wrong(forgotten, "with the old head")
def without_the_bias(before, after, head, labels):
    shares = [share(x[1::2] @ head[:-1], labels[1::2]) for x in (before, after)]
    new = measured(before, after, head, labels)[1]
    return torch.stack([shares[0] - shares[1], new])


@wrong(forgotten, "with the old head")
def disagreement(before, after, head, labels):
    answers = [(ones(x[1::2]) @ head).argmax(dim=1) for x in (before, after)]
    moved = (answers[0] != answers[1]).double().mean()
    return torch.stack([moved, measured(before, after, head, labels)[1]])


@wrong(forgotten, "type")
def in_words(before, after, head, labels):
    old, new = measured(before, after, head, labels).tolist()
    return {"old": old, "new": new}
