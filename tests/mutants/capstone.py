"""Answers to the tasks of the capstone."""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

import vitlib
from mutants.answers import right, wrong
from vitlib.checks.capstone import Embed, ViT, accuracy, fit, solve

# Embed


class Parts(nn.Module):
    """What most answers share."""

    def __init__(self, image_size, patch_size, in_channels, embed_dim):
        super().__init__()
        height, width = image_size
        self.p = patch_size
        n = (height // patch_size) * (width // patch_size)
        self.proj = nn.Linear(in_channels * patch_size**2, embed_dim)
        self.pos_embed = nn.Parameter(torch.randn(1, n, embed_dim))


def cut(images, p):
    return rearrange(images, "b c (h p1) (w p2) -> b (h w) (c p1 p2)", p1=p, p2=p)


@right(Embed)
class Rearranged(Parts):
    def forward(self, images):
        return self.proj(cut(images, self.p)) + self.pos_embed


@right(Embed)
class Unfolded(Parts):
    def forward(self, images):
        patches = F.unfold(images, self.p, stride=self.p).transpose(1, 2)
        return self.proj(patches) + self.pos_embed


@right(Embed)
class As_a_convolution(Parts):
    def forward(self, images):
        kernel = self.proj.weight.unflatten(1, (images.shape[1], self.p, self.p))
        tokens = F.conv2d(images, kernel, self.proj.bias, stride=self.p)
        return tokens.flatten(2).mT + self.pos_embed


@right(Embed)
class Patch_after_patch(Parts):
    def forward(self, images):
        tokens = []
        for strip in images.split(self.p, dim=2):
            for patch in strip.split(self.p, dim=3):
                tokens.append(self.proj(patch.flatten(1)))
        return torch.stack(tokens, dim=1) + self.pos_embed


@wrong(Embed, "reshape alone")
class Reshaped(Parts):
    def forward(self, images):
        patches = images.reshape(len(images), self.pos_embed.shape[1], -1)
        return self.proj(patches) + self.pos_embed


@wrong(Embed, "channel last")
class Colours_last(Parts):
    def forward(self, images):
        patches = rearrange(
            images, "b c (h p) (w q) -> b (h w) (p q c)", p=self.p, q=self.p
        )
        return self.proj(patches) + self.pos_embed


@wrong(Embed, "columns first")
class Numbered_downwards(Parts):
    def forward(self, images):
        patches = rearrange(
            images, "b c (h p) (w q) -> b (w h) (c p q)", p=self.p, q=self.p
        )
        return self.proj(patches) + self.pos_embed


@wrong(Embed, "transposed patches")
class Turned_inside(Parts):
    def forward(self, images):
        patches = rearrange(
            images, "b c (h p) (w q) -> b (h w) (c q p)", p=self.p, q=self.p
        )
        return self.proj(patches) + self.pos_embed


@wrong(Embed, "no positions")
class Table_not_used(Parts):
    def forward(self, images):
        return self.proj(cut(images, self.p))


@wrong(Embed, "one vector for all tokens")
class First_row_for_all(Parts):
    def forward(self, images):
        return self.proj(cut(images, self.p)) + self.pos_embed[:, 0].unsqueeze(1)


@wrong(Embed, "multiplied")
class Times_the_table(Parts):
    def forward(self, images):
        return self.proj(cut(images, self.p)) * self.pos_embed


@wrong(Embed, "shapes")
class With_a_class_row(Parts):
    def __init__(self, image_size, patch_size, in_channels, embed_dim):
        super().__init__(image_size, patch_size, in_channels, embed_dim)
        n = self.pos_embed.shape[1]
        self.pos_embed = nn.Parameter(torch.zeros(1, n + 1, embed_dim))


@wrong(Embed, "names")
class Table_as_a_buffer(Parts):
    def __init__(self, image_size, patch_size, in_channels, embed_dim):
        super().__init__(image_size, patch_size, in_channels, embed_dim)
        table = self.pos_embed.data
        del self.pos_embed
        self.register_buffer("pos_embed", table)

    def forward(self, images):
        return self.proj(cut(images, self.p)) + self.pos_embed


@wrong(Embed, "positions")
class Table_upside_down(Parts):
    def forward(self, images):
        return self.proj(cut(images, self.p)) + self.pos_embed.flip(1)


# ViT


class Model(nn.Module):
    """What most answers share."""

    def __init__(
        self,
        image_size,
        patch_size,
        in_channels,
        embed_dim,
        depth,
        num_heads,
        num_classes,
    ):
        super().__init__()
        self.embed = Rearranged(image_size, patch_size, in_channels, embed_dim)
        blocks = [vitlib.EncoderBlock(embed_dim, num_heads) for _ in range(depth)]
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(embed_dim, eps=1e-6)
        self.head = nn.Linear(embed_dim, num_classes)

    def encoded(self, images):
        x = self.embed(images)
        for block in self.blocks:
            x = block(x)
        return x


@right(ViT)
class Loop_over_blocks(Model):
    def forward(self, images):
        return self.head(self.norm(self.encoded(images).mean(dim=1)))


@right(ViT)
class Sum_over_count(Model):
    def forward(self, images):
        x = self.encoded(images)
        mean = torch.einsum("bne->be", x) / x.shape[1]
        mean = F.layer_norm(
            mean, mean.shape[1:], self.norm.weight, self.norm.bias, 1e-6
        )
        return mean @ self.head.weight.T + self.head.bias


@right(ViT)
class Sequential_blocks(Model):
    def forward(self, images):
        x = nn.Sequential(self.embed, *self.blocks)(images)
        return nn.Sequential(self.norm, self.head)(x.transpose(1, 2).mean(-1))


@wrong(ViT, "first token")
class Token_0_read(Model):
    def forward(self, images):
        return self.head(self.norm(self.encoded(images))[:, 0])


@wrong(ViT, "norm before the mean")
class Normalised_tokens(Model):
    def forward(self, images):
        return self.head(self.norm(self.encoded(images))).mean(dim=1)


@wrong(ViT, "no last norm")
class Norm_forgotten(Model):
    def forward(self, images):
        return self.head(self.encoded(images).mean(dim=1))


@wrong(ViT, "largest, not mean")
class Maximum(Model):
    def forward(self, images):
        return self.head(self.norm(self.encoded(images).max(dim=1).values))


@wrong(ViT, "all tokens scored")
class No_pooling(Model):
    def forward(self, images):
        return self.head(self.norm(self.encoded(images)))


@wrong(ViT, "softmax at the end")
class Probabilities(Model):
    def forward(self, images):
        return F.softmax(self.head(self.norm(self.encoded(images).mean(1))), dim=1)


@wrong(ViT, "one block only")
class First_block(Model):
    def forward(self, images):
        x = self.blocks[0](self.embed(images))
        return self.head(self.norm(x.mean(dim=1)))


@wrong(ViT, "blocks backwards")
class Backwards(Model):
    def forward(self, images):
        x = self.embed(images)
        for block in reversed(self.blocks):
            x = block(x)
        return self.head(self.norm(x.mean(dim=1)))


@wrong(ViT, "residual around the blocks")
class Added_again(Model):
    def forward(self, images):
        x = self.encoded(images) + self.embed(images)
        return self.head(self.norm(x.mean(dim=1)))


@wrong(ViT, "no blocks")
class Blocks_forgotten(Model):
    def forward(self, images):
        return self.head(self.norm(self.embed(images).mean(dim=1)))


@wrong(ViT, "batch mixed")
class Mean_over_the_batch(Model):
    def forward(self, images):
        x = self.encoded(images)
        mean = x.mean(dim=1) + 0 * x.mean(dim=(0, 1))
        return self.head(self.norm(mean - mean.mean(dim=0)))


@wrong(ViT, "blocks")
class Residual_of_each_block(Model):
    def forward(self, images):
        x = self.embed(images)
        for block in self.blocks:
            x = x + block(x)
        return self.head(self.norm(x.mean(dim=1)))


@wrong(ViT, "names")
class Norm_called_otherwise(Model):
    def __init__(
        self,
        image_size,
        patch_size,
        in_channels,
        embed_dim,
        depth,
        num_heads,
        num_classes,
    ):
        super().__init__(
            image_size,
            patch_size,
            in_channels,
            embed_dim,
            depth,
            num_heads,
            num_classes,
        )
        self.last_norm = self.norm
        del self.norm


# fit


@right(fit)
def plain_loop(network, batches, lr):
    network.train()
    optimizer = torch.optim.AdamW(network.parameters(), lr)
    losses = []
    for images, labels in batches:
        optimizer.zero_grad()
        loss = F.cross_entropy(network(images), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return torch.tensor(losses)


@right(fit)
def cleared_behind_the_step(network, batches, lr):
    optimizer = torch.optim.AdamW(list(network.parameters()), lr=lr, foreach=False)
    losses = torch.zeros(len(batches))
    for step, (images, labels) in enumerate(batches):
        log_shares = network.train()(images).log_softmax(dim=1)
        loss = F.nll_loss(log_shares, labels)
        loss.backward()
        optimizer.step()
        network.zero_grad()
        losses[step] = loss.detach()
    return losses


@right(fit)
def gradients_asked_for(network, batches, lr):
    network.train()
    weights = list(network.parameters())
    optimizer, losses = torch.optim.AdamW(weights, lr=lr), []
    for images, labels in batches:
        scores = network(images)
        shares = scores.exp() / scores.exp().sum(dim=1, keepdim=True)
        loss = -shares[torch.arange(len(labels)), labels].log().mean()
        gradients = torch.autograd.grad(loss, weights)
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.grad = gradient
        optimizer.step()
        losses.append(loss.detach())
    return torch.stack(losses)


def looped(network, batches, optimizer, step):
    network.train()
    losses = []
    for images, labels in batches:
        loss = F.cross_entropy(network(images), labels)
        step(loss, optimizer)
        losses.append(loss.detach())
    return torch.stack(losses)


@wrong(fit, "gradients not cleared")
def never_cleared(network, batches, lr):
    def step(loss, optimizer):
        loss.backward()
        optimizer.step()

    return looped(network, batches, torch.optim.AdamW(network.parameters(), lr), step)


@wrong(fit, "no step")
def cleared_too_early(network, batches, lr):
    def step(loss, optimizer):
        loss.backward()
        optimizer.zero_grad()
        optimizer.step()

    return looped(network, batches, torch.optim.AdamW(network.parameters(), lr), step)


@wrong(fit, "no step")
def step_before_backward(network, batches, lr):
    def step(loss, optimizer):
        optimizer.zero_grad()
        optimizer.step()
        loss.backward()

    return looped(network, batches, torch.optim.AdamW(network.parameters(), lr), step)


@wrong(fit, "not in training mode")
def mode_left_as_it_was(network, batches, lr):
    optimizer = torch.optim.AdamW(network.parameters(), lr)
    losses = []
    for images, labels in batches:
        loss = F.cross_entropy(network(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return torch.stack(losses)


@wrong(fit, "a new optimizer for each step")
def optimizer_inside_the_loop(network, batches, lr):
    return torch.cat([plain_loop(network, [batch], lr) for batch in batches])


@wrong(fit, "softmax twice")
def probabilities_into_the_loss(network, batches, lr):
    network = nn.Sequential(network, nn.Softmax(dim=1))
    return plain_loop(network, batches, lr)


@wrong(fit, "SGD")
def gradient_descent(network, batches, lr):
    def step(loss, _):
        network.zero_grad()
        loss.backward()
        with torch.no_grad():
            for weight in network.parameters():
                weight -= lr * weight.grad

    return looped(network, batches, None, step)


@wrong(fit, "steps")
def adam_with_coupled_decay(network, batches, lr):
    network.train()
    optimizer = torch.optim.Adam(network.parameters(), lr=lr, weight_decay=0.3)
    losses = []
    for images, labels in batches:
        optimizer.zero_grad()
        losses.append(F.cross_entropy(network(images), labels))
        losses[-1].backward()
        optimizer.step()
    return torch.stack(losses).detach()


@wrong(fit, "Adam")
def without_decay(network, batches, lr):
    def step(loss, optimizer):
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return looped(network, batches, torch.optim.Adam(network.parameters(), lr), step)


@wrong(fit, "lr ignored")
def default_rate(network, batches, lr):
    return plain_loop(network, batches, 0.001)


@wrong(fit, "loss behind the step")
def measured_after_the_step(network, batches, lr):
    network.train()
    optimizer, losses = torch.optim.AdamW(network.parameters(), lr), []
    for images, labels in batches:
        loss = F.cross_entropy(network(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(F.cross_entropy(network(images), labels).item())
    return torch.tensor(losses)


@wrong(fit, "steps")
def only_the_last_layer(network, batches, lr):
    network.train()
    optimizer = torch.optim.AdamW(network[-1].parameters(), lr)

    def step(loss, optimizer):
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return looped(network, batches, optimizer, step)


@wrong(fit, "first loss")
def mean_squared_error(network, batches, lr):
    network.train()
    optimizer = torch.optim.AdamW(network.parameters(), lr)
    losses = []
    for images, labels in batches:
        wanted = F.one_hot(labels, 3).float()
        loss = F.mse_loss(network(images), wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return torch.stack(losses)


@wrong(fit, "type")
def list_of_losses(network, batches, lr):
    return plain_loop(network, batches, lr).tolist()


@wrong(fit, "shape")
def last_loss_alone(network, batches, lr):
    return plain_loop(network, batches, lr)[-1]


@wrong(fit, "steps")
def with_a_schedule(network, batches, lr):
    network.train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, len(batches))
    losses = []
    for images, labels in batches:
        loss = F.cross_entropy(network(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.detach())
    return torch.stack(losses)


# accuracy


@right(accuracy)
def mean_of_hits(network, images, labels):
    network.eval()
    with torch.no_grad():
        return (network(images).argmax(dim=1) == labels).float().mean()


@right(accuracy)
def counted_one_by_one(network, images, labels):
    network = network.train(False)
    hits = 0
    for image, label in zip(images, labels, strict=True):
        hits += int(network(image[None])[0].argmax()) == int(label)
    return hits / len(labels)


@right(accuracy)
def in_two_batches(network, images, labels):
    network.eval()
    scores = torch.cat([network(part) for part in images.split(5)])
    return scores.max(dim=1).indices.eq(labels).sum() / labels.numel()


@wrong(accuracy, "in training mode")
def mode_not_set(network, images, labels):
    return (network(images).argmax(dim=1) == labels).float().mean()


@wrong(accuracy, "counted, not averaged")
def number_of_hits(network, images, labels):
    return mean_of_hits(network, images, labels) * labels.numel()


@wrong(accuracy, "percent")
def in_percent(network, images, labels):
    return mean_of_hits(network, images, labels) * 100


@wrong(accuracy, "share of errors")
def wrong_ones(network, images, labels):
    network.eval()
    return (network(images).argmax(dim=1) != labels).float().mean()


@wrong(accuracy, "lowest score")
def least_likely(network, images, labels):
    network.eval()
    return ((-network(images)).argmax(dim=1) == labels).float().mean()


@wrong(accuracy, "shape")
def hits_of_each_image(network, images, labels):
    network.eval()
    return (network(images).argmax(dim=1) == labels).float()


@wrong(accuracy, "values")
def rounded_to_a_number(network, images, labels):
    return int(mean_of_hits(network, images, labels))


# solve


def shapes(images):
    """Return where ring and cross stand, row and column, (N) each."""
    cells = images.unfold(2, 8, 8).unfold(3, 8, 8).flatten(1, 3)
    ring = cells[:, :, 1:3, 1:3].mean(dim=(2, 3)).argmax(dim=1)
    cross = cells[:, :, 3:5, 3:5].mean(dim=(2, 3)).argmax(dim=1)
    return ring // 4, ring % 4, cross // 4, cross % 4


def guess(relation, seed):
    dice = torch.Generator().manual_seed(seed)
    return torch.randint(4, (len(relation.unseen),), generator=dice)


# That a ViT solves it, the solution in the notebook shows.
@right(solve)
def learned_from_pairs_of_places(relation, seed, positions):
    if not positions:
        return guess(relation, seed)

    def pairs(images):
        ring_row, ring_col, cross_row, cross_col = shapes(images)
        place = 64 * ring_row + 16 * ring_col + 4 * cross_row + cross_col
        return F.one_hot(place, 256).double()

    classes = F.one_hot(relation.labels, 4).double()
    known = pairs(relation.images)
    return (pairs(relation.unseen) @ (known.T @ classes)).argmax(dim=1)


@right(solve)
def rules_by_hand(relation, seed, positions):
    if not positions:
        return guess(relation, seed)
    ring_row, ring_col, cross_row, cross_col = shapes(relation.unseen)
    along = torch.where(ring_col < cross_col, 0, 1)
    down = torch.where(ring_row < cross_row, 2, 3)
    return torch.where(ring_row == cross_row, along, down)


@right(solve)
def most_alike_image(relation, seed, positions):
    known, unseen = relation.images[:2000], relation.unseen
    if not positions:  # every image's patches in an order of its own
        dice = torch.Generator().manual_seed(seed)

        def shuffled(images):
            patches = vitlib.split_patches(images, 8)
            order = torch.rand(patches.shape[:2], generator=dice).argsort(dim=1)
            return patches.gather(1, order[:, :, None].expand_as(patches))

        known, unseen = shuffled(known), shuffled(unseen)
    nearest = torch.cdist(unseen.flatten(1), known.flatten(1)).argmin(dim=1)
    return relation.labels[nearest]


@wrong(solve, "at chance")
def guessed(relation, seed, positions):
    return guess(relation, seed)


@wrong(solve, "one class")
def never_trained(relation, seed, positions):
    return torch.zeros(len(relation.unseen), dtype=torch.long)


@wrong(solve, "at chance")
def labels_of_other_images(relation, seed, positions):
    relation.labels = relation.labels.roll(1)
    return most_alike_image(relation, seed, positions)


@wrong(solve, "classes renamed")
def left_and_right_swapped(relation, seed, positions):
    return torch.tensor([1, 0, 2, 3])[rules_by_hand(relation, seed, positions)]


@wrong(solve, "control")
def switch_ignored(relation, seed, positions):
    return rules_by_hand(relation, seed, True)


@wrong(solve, "not enough")
def rows_only(relation, seed, positions):
    ring_row, _, cross_row, _ = shapes(relation.unseen)
    answers = rules_by_hand(relation, seed, positions)
    return torch.where(ring_row == cross_row, guess(relation, seed), answers)


@wrong(solve, "at chance")
def one_seed_fails(relation, seed, positions):
    answers = rules_by_hand(relation, seed, positions)
    return guess(relation, seed) if seed == 2 else answers


@wrong(solve, "form")
def scores_not_classes(relation, seed, positions):
    return F.one_hot(rules_by_hand(relation, seed, positions), 4).float()


@wrong(solve, "form")
def answers_for_the_known(relation, seed, positions):
    return relation.labels.clone()
