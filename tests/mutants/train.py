"""Answers to the exercises of chapter 10."""

import random

import torch
import torch.nn.functional as F
from torch import nn

from mutants.answers import right, wrong
from vitlib.checks.train import (
    accumulate,
    compare,
    names_that_decay,
    one_epoch,
    trapezoid,
)

# trapezoid


@right(trapezoid)
def the_lowest_of_three(step, num_steps, lr, warmup, cooldown):
    shares = [1.0]
    if warmup:
        shares.append((step + 1) / warmup)
    if cooldown:
        shares.append((num_steps - step) / cooldown)
    return lr * min(shares)


@right(trapezoid)
def in_pieces(step, num_steps, lr, warmup, cooldown):
    left = num_steps - step
    rate = lr
    if step < warmup:
        rate = lr * (step + 1) / warmup
    if left < cooldown:
        rate = min(rate, lr * left / cooldown)
    return rate


@right(trapezoid)
def clamped_tensors(step, num_steps, lr, warmup, cooldown):
    rise = torch.tensor((step + 1) / max(warmup, 1))
    fall = torch.tensor((num_steps - step) / max(cooldown, 1))
    return lr * torch.minimum(rise, fall).clamp(max=1)


@wrong(trapezoid, "starts at 0")
def counted_from_0(step, num_steps, lr, warmup, cooldown):
    rise = step / warmup if warmup else 1
    fall = (num_steps - step) / cooldown if cooldown else 1
    return lr * min(rise, 1, fall)


@wrong(trapezoid, "ends at 0")
def nothing_left(step, num_steps, lr, warmup, cooldown):
    rise = (step + 1) / warmup if warmup else 1
    fall = (num_steps - 1 - step) / cooldown if cooldown else 1
    return lr * min(rise, 1, fall)


@wrong(trapezoid, "starts and ends at 0")
def both_ends_at_zero(step, num_steps, lr, warmup, cooldown):
    rate = lr * step / warmup if step < warmup else lr
    if num_steps - step - 1 < cooldown:
        rate = min(rate, lr * (num_steps - step - 1) / cooldown)
    return rate


@wrong(trapezoid, "never falls")
def warm_up_only(step, num_steps, lr, warmup, cooldown):
    return lr * (step + 1) / warmup if step < warmup else lr


@wrong(trapezoid, "never rises")
def cool_down_only(step, num_steps, lr, warmup, cooldown):
    left = num_steps - step
    return lr * left / cooldown if left < cooldown else lr


@wrong(trapezoid, "crash without warm-up")
def divides_by_nothing(step, num_steps, lr, warmup, cooldown):
    return lr * min(1, (step + 1) / warmup, (num_steps - step) / cooldown)


@wrong(trapezoid, "the rise wins")
def rise_first(step, num_steps, lr, warmup, cooldown):
    if step < warmup:
        return lr * (step + 1) / warmup
    if step >= num_steps - cooldown:
        return lr * (num_steps - step) / cooldown
    return lr


@wrong(trapezoid, "rise times fall")
def product_of_shares(step, num_steps, lr, warmup, cooldown):
    rate = lr
    if step < warmup:
        rate *= (step + 1) / warmup
    if num_steps - step < cooldown:
        rate *= (num_steps - step) / cooldown
    return rate


@wrong(trapezoid, "plateau")
def a_tilted_plateau(step, num_steps, lr, warmup, cooldown):
    rate = the_lowest_of_three(step, num_steps, lr, warmup, cooldown)
    flat = warmup <= step < num_steps - cooldown
    return lr * (1 - 0.01 * step) if flat and step else rate


@wrong(trapezoid, "rise")
def squared_rise(step, num_steps, lr, warmup, cooldown):
    rate = the_lowest_of_three(step, num_steps, lr, warmup, cooldown)
    return rate * rate / lr if step < warmup else rate


@wrong(trapezoid, "fall")
def half_as_low(step, num_steps, lr, warmup, cooldown):
    rate = the_lowest_of_three(step, num_steps, lr, warmup, cooldown)
    return (rate + lr) / 2 if num_steps - step < cooldown else rate


@wrong(trapezoid, "type")
def nothing_after_the_rise(step, num_steps, lr, warmup, cooldown):
    if step < warmup:
        return lr * (step + 1) / warmup


# names_that_decay


@right(names_that_decay)
def by_module(model):
    names = []
    for path, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            names.append(f"{path}.weight")
    return names


@right(names_that_decay)
def as_a_set(model):
    owners = dict(model.named_modules())
    return {
        name
        for name, _ in model.named_parameters()
        if name.endswith(".weight")
        and isinstance(owners[name.removesuffix(".weight")], (nn.Linear, nn.Conv2d))
    }


@right(names_that_decay)
def by_identity(model):
    kept = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    ids = {id(value) for value in kept}
    return tuple(name for name, value in model.named_parameters() if id(value) in ids)


@wrong(names_that_decay, "everything")
def all_of_them(model):
    return [name for name, _ in model.named_parameters()]


@wrong(names_that_decay, "nothing")
def modules_at_the_top(model):
    return [name for name, value in model.named_parameters() if value.ndim > 4]


@wrong(names_that_decay, "all but biases", "huggingface/transformers issue 492")
def no_bias_in_the_name(model):
    return [name for name, _ in model.named_parameters() if "bias" not in name]


@wrong(names_that_decay, "named weight")
def ends_in_weight(model):
    return [n for n in model.state_dict() if n.split(".")[-1] == "weight"]


@wrong(names_that_decay, "by axes")
def two_axes(model):
    return {name for name, value in model.named_parameters() if value.dim() >= 2}


@wrong(names_that_decay, "by our names")
def as_in_the_chapter(model):
    return [
        name
        for name, value in model.named_parameters()
        if value.ndim > 1 and name not in ("cls_token", "pos_embed")
    ]


@wrong(names_that_decay, "no kernel")
def linear_layers(model):
    return [f"{p}.weight" for p, m in model.named_modules() if isinstance(m, nn.Linear)]


@wrong(names_that_decay, "exact type")
def compared_types(model):
    return [
        f"{path}.weight"
        for path, module in model.named_modules()
        if type(module) in (nn.Linear, nn.Conv2d)
    ]


@wrong(names_that_decay, "too many")
def biases_of_layers(model):
    return [
        f"{path}.{name}"
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
        for name, _ in module.named_parameters(recurse=False)
    ]


@wrong(names_that_decay, "missing")
def children_only(model):
    return [
        f"{path}.weight"
        for path, module in model.named_children()
        if isinstance(module, nn.Linear | nn.Conv2d)
    ]


@wrong(names_that_decay, "unknown name")
def without_a_path(model):
    return ["weight" for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)]


@wrong(names_that_decay, "type")
def parameters_themselves(model):
    return [m.weight for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)]


# one_epoch


def published(model, batches, lr, fixed):
    """The loop of the task, with some of its mistakes mended."""
    if "mode" in fixed:
        model.train()
    losses, sizes = [], []
    for images, labels in batches:
        scores = model(images)
        if "softmax" not in fixed:
            scores = scores.softmax(dim=1)
        loss = F.cross_entropy(scores, labels)
        if "zero" in fixed:
            model.zero_grad()
        loss.backward()
        with torch.no_grad():
            for value in model.parameters():
                value -= lr * value.grad
        losses.append(loss.item())
        sizes.append(len(images))
    if "mean" in fixed:
        return sum(x * n for x, n in zip(losses, sizes, strict=True)) / sum(sizes)
    return sum(losses) / len(losses)


@right(one_epoch)
def all_four_mended(model, batches, lr):
    return published(model, batches, lr, ("mode", "softmax", "zero", "mean"))


@right(one_epoch)
def by_an_optimizer(model, batches, lr):
    optimizer = torch.optim.SGD(model.train().parameters(), lr=lr)
    total, seen = 0.0, 0
    for images, labels in batches:
        loss = F.cross_entropy(model(images), labels, reduction="sum")
        optimizer.zero_grad()
        (loss / len(images)).backward()
        optimizer.step()
        total, seen = total + loss.item(), seen + len(images)
    return total / seen


@right(one_epoch)
def by_functional_gradients(model, batches, lr):
    model.train()
    every = []
    for images, labels in batches:
        logs = model(images).log_softmax(dim=1)
        each = -logs[torch.arange(len(labels)), labels]
        parameters = list(model.parameters())
        gradients = torch.autograd.grad(each.mean(), parameters)
        for value, gradient in zip(parameters, gradients, strict=True):
            value.data.sub_(gradient, alpha=lr)
        every.append(each.detach())
    return torch.cat(every).mean()


@wrong(one_epoch, "softmax twice", "bkitano/llama-from-scratch issue 5")
def softmax_left(model, batches, lr):
    return published(model, batches, lr, ("mode", "zero", "mean"))


@wrong(one_epoch, "gradients add up")
def never_zeroed(model, batches, lr):
    return published(model, batches, lr, ("mode", "softmax", "mean"))


@wrong(one_epoch, "not in training mode")
def mode_left(model, batches, lr):
    return published(model, batches, lr, ("softmax", "zero", "mean"))


@wrong(one_epoch, "mean of means")
def mean_left(model, batches, lr):
    return published(model, batches, lr, ("mode", "softmax", "zero"))


@wrong(one_epoch, "softmax twice and mean of means")
def two_of_four(model, batches, lr):
    return published(model, batches, lr, ("mode", "zero"))


@wrong(
    one_epoch,
    "softmax twice, gradients add up, not in training mode and mean of means",
)
def as_published(model, batches, lr):
    return published(model, batches, lr, ())


@wrong(one_epoch, "nothing learned")
def zeroed_before_the_step(model, batches, lr):
    optimizer = torch.optim.SGD(model.train().parameters(), lr=lr)
    total, seen = 0.0, 0
    for images, labels in batches:
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.zero_grad()
        optimizer.step()
        total, seen = total + loss.item() * len(images), seen + len(images)
    return total / seen


@wrong(one_epoch, "loss")
def last_loss(model, batches, lr):
    return [all_four_mended(model, [batch], lr) for batch in batches][-1]


@wrong(one_epoch, "uphill")
def climbs(model, batches, lr):
    return all_four_mended(model, batches, -lr)


@wrong(one_epoch, "another step")
def sum_of_the_losses(model, batches, lr):
    optimizer = torch.optim.SGD(model.train().parameters(), lr=lr)
    total, seen = 0.0, 0
    for images, labels in batches:
        loss = F.cross_entropy(model(images), labels, reduction="sum")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total, seen = total + loss.item(), seen + len(images)
    return total / seen


@wrong(one_epoch, "type")
def list_of_losses(model, batches, lr):
    return [all_four_mended(model, [batch], lr) for batch in batches]


@wrong(one_epoch, "crash")
def no_grad_around_all(model, batches, lr):
    with torch.no_grad():
        return all_four_mended(model, batches, lr)


@wrong(one_epoch, "carried over")
def with_momentum(model, batches, lr):
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    model.train()
    total = 0
    for images, labels in batches:
        loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item() * len(images)
    return total / sum(len(images) for images, _ in batches)


# accumulate


@right(accumulate)
def weighted_means(model, images, labels, size):
    model.zero_grad()
    for start in range(0, len(images), size):
        some = slice(start, start + size)
        loss = F.cross_entropy(model(images[some]), labels[some])
        (loss * (len(images[some]) / len(images))).backward()


@right(accumulate)
def sums_of_pieces(model, images, labels, size):
    for value in model.parameters():
        value.grad = None
    for part, answers in zip(images.split(size), labels.split(size), strict=True):
        loss = F.cross_entropy(model(part), answers, reduction="sum")
        (loss / len(images)).backward()
    return model


@right(accumulate)
def image_by_image(model, images, labels, size):
    total = [torch.zeros_like(value) for value in model.parameters()]
    for image, label in zip(images, labels, strict=True):
        loss = F.cross_entropy(model(image[None]), label[None])
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        for kept, gradient in zip(total, gradients, strict=True):
            kept += gradient
    for value, kept in zip(model.parameters(), total, strict=True):
        value.grad = kept / len(images)


def in_pieces_with(share, zero=True, inside=False):
    """Return an answer that weighs a piece by share(piece, all, size)."""

    def answer(model, images, labels, size):
        if zero:
            model.zero_grad()
        for start in range(0, len(images), size):
            if inside:
                model.zero_grad()
            part, answers = images[start : start + size], labels[start : start + size]
            loss = F.cross_entropy(model(part), answers, reduction="sum")
            (loss * share(len(part), len(images), size)).backward()

    return answer


@wrong(accumulate, "mean of means", "huggingface/transformers issue 24725")
def number_of_pieces(model, images, labels, size):
    pieces = (len(images) + size - 1) // size
    in_pieces_with(lambda part, n, size: 1 / part / pieces)(model, images, labels, size)


@wrong(accumulate, "sum of means")
def every_piece_whole(model, images, labels, size):
    in_pieces_with(lambda part, n, size: 1 / part)(model, images, labels, size)


@wrong(accumulate, "old gradient kept")
def starts_from_what_is_there(model, images, labels, size):
    in_pieces_with(lambda part, n, size: 1 / n, zero=False)(model, images, labels, size)


@wrong(accumulate, "one piece")
def zeroed_inside(model, images, labels, size):
    in_pieces_with(lambda part, n, size: 1 / n, inside=True)(
        model, images, labels, size
    )


@wrong(accumulate, "one piece")
def first_piece_only(model, images, labels, size):
    model.zero_grad()
    F.cross_entropy(model(images[:size]), labels[:size]).backward()


@wrong(accumulate, "divided by size")
def by_the_room(model, images, labels, size):
    in_pieces_with(lambda part, n, size: 1 / size)(model, images, labels, size)


@wrong(accumulate, "sum over images")
def never_divided(model, images, labels, size):
    in_pieces_with(lambda part, n, size: 1.0)(model, images, labels, size)


@wrong(accumulate, "divided twice")
def mean_over_all_images(model, images, labels, size):
    in_pieces_with(lambda part, n, size: 1 / part / n)(model, images, labels, size)


@wrong(accumulate, "too many at once")
def the_whole_batch(model, images, labels, size):
    model.zero_grad()
    F.cross_entropy(model(images), labels).backward()


@wrong(accumulate, "too many at once")
def losses_joined(model, images, labels, size):
    model.zero_grad()
    scores = model(torch.cat(images.split(size)))
    F.cross_entropy(scores, labels).backward()


@wrong(accumulate, "no gradient left")
def cleaned_up(model, images, labels, size):
    weighted_means(model, images, labels, size)
    model.zero_grad()


@wrong(accumulate, "one piece")
def last_piece_dropped(model, images, labels, size):
    whole = max(len(images) // size, 1) * size
    weighted_means(model, images[:size], labels[:size], whole)


# compare


@right(compare)
def differences_sorted(one, other, seeds):
    gains = sorted(one(seed) - other(seed) for seed in seeds)
    return torch.tensor([gains[0], sum(gains) / len(gains), gains[-1]])


@right(compare)
def first_one_then_the_other(one, other, seeds):
    a = torch.tensor([one(seed) for seed in seeds], dtype=torch.float64)
    b = torch.tensor([other(seed) for seed in seeds], dtype=torch.float64)
    gains = a - b
    return torch.tensor([gains.min(), gains.mean(), gains.max()])


@right(compare)
def in_any_order_of_seeds(one, other, seeds):
    kept = {seed: one(seed) for seed in reversed(seeds)}
    gains = [kept[seed] - other(seed) for seed in sorted(seeds)]
    return min(gains), sum(gains) / len(gains), max(gains)


@wrong(compare, "not seed by seed")
def each_for_itself(one, other, seeds):
    a, b = [one(seed) for seed in seeds], [other(seed) for seed in seeds]
    mean = sum(a) / len(a) - sum(b) / len(b)
    return torch.tensor([min(a) - min(b), mean, max(a) - max(b)])


@wrong(compare, "every pair")
def all_against_all(one, other, seeds):
    a, b = ([train(seed) for seed in seeds] for train in (one, other))
    gains = torch.tensor([x - y for x in a for y in b])
    return torch.stack([gains.min(), gains.mean(), gains.max()])


@wrong(compare, "other way round")
def one_taken_away(one, other, seeds):
    return differences_sorted(other, one, seeds)


@wrong(compare, "no sign")
def distances(one, other, seeds):
    gains = sorted(abs(one(seed) - other(seed)) for seed in seeds)
    return torch.tensor([gains[0], sum(gains) / len(gains), gains[-1]])


@wrong(compare, "in the order of the seeds")
def all_of_the_gains(one, other, seeds):
    return torch.tensor([one(seed) - other(seed) for seed in seeds])


@wrong(compare, "another order")
def mean_first(one, other, seeds):
    low, mean, high = differences_sorted(one, other, seeds)
    return torch.stack([mean, low, high])


@wrong(compare, "median")
def the_middle_one(one, other, seeds):
    gains = torch.tensor([one(seed) - other(seed) for seed in seeds])
    return torch.stack([gains.min(), gains.median(), gains.max()])


@wrong(compare, "trained too often")
def trains_for_every_number(one, other, seeds):
    return torch.tensor(
        [
            min(one(seed) - other(seed) for seed in seeds),
            sum(one(seed) - other(seed) for seed in seeds) / len(seeds),
            max(one(seed) - other(seed) for seed in seeds),
        ]
    )


@wrong(compare, "other seeds")
def seeds_counted_anew(one, other, seeds):
    gains = sorted(one(seed) - other(seed) for seed in range(len(seeds)))
    return torch.tensor([gains[0], sum(gains) / len(gains), gains[-1]])


@wrong(compare, "other seeds")
def fresh_dice_for_the_other(one, other, seeds):
    gains = sorted(one(seed) - other(random.randrange(100, 200)) for seed in seeds)
    return torch.tensor([gains[0], sum(gains) / len(gains), gains[-1]])


@wrong(compare, "shape")
def the_mean_alone(one, other, seeds):
    return differences_sorted(one, other, seeds)[1]
