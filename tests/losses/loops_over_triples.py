"""The four losses as loops over triples (anchor, positive, negative), directly from their definition."""

import math

import torch

LINKS = {
    "infonce": lambda t, w, k: torch.log(1 + sum(b * torch.exp(a) for a, b in zip(t, w, strict=True))),
    "infonce sum": lambda t, w, k: torch.log(1 + k * sum(b * torch.exp(a) for a, b in zip(t, w, strict=True))),
    "infonce alpha 0.3": lambda t, w, k: torch.log(0.3 + sum(b * torch.exp(a) for a, b in zip(t, w, strict=True))),
    "infonce sum alpha 0": lambda t, w, k: torch.log(k * sum(b * torch.exp(a) for a, b in zip(t, w, strict=True))),
    "logistic": lambda t, w, k: sum(b * torch.log(1 + torch.exp(a)) for a, b in zip(t, w, strict=True)),
    "triplet": lambda t, w, k: sum(b * torch.clamp(a + 0.4, min=0) for a, b in zip(t, w, strict=True)),
    "custom": lambda t, w, k: sum(b * torch.exp(a) for a, b in zip(t, w, strict=True)) ** 2,
}


def _hardest(s, fraction):
    kept = sorted(s.tolist(), reverse=True)[max(1, math.ceil(fraction * len(s) - 1e-9)) - 1]
    return (s >= kept).to(s)


ETAS = {
    "none": lambda s: torch.ones_like(s),
    "exponential": lambda s: torch.exp(3 * (s - s.detach().max())),
    "polynomial": lambda s: torch.clamp(1 + s, min=0) ** 2.5,
    "threshold": lambda s: _hardest(s.detach(), 0.4),
    "value": lambda s: (s >= 0.2).to(s) if (s >= 0.2).any() else torch.ones_like(s),
    "custom": lambda s: (s + 2) ** 3,
}


def loop_loss(
    z,
    labels,
    negatives,
    beta=0.0,
    temperature=1.0,
    normalization="unit_ball",
    differentiate=False,
    include_self=False,
    link="infonce",
    eta=None,
    past=None,
    past_labels=(),
    classes=None,
):
    norms = z.norm(dim=1, keepdim=True)
    z = {"unit_ball": z / norms.clamp(min=1), "unit_sphere": z / norms.masked_fill(norms == 0, math.inf), "none": z}[
        normalization
    ]
    classes = labels if classes is None else classes
    eta = ETAS[eta] if eta else lambda s: torch.exp(beta * (s - s.detach().max()))
    losses = []
    for i in range(len(z)):
        positive = [j for j in range(len(z)) if labels[j] == labels[i] and (include_self or j != i)]
        if negatives == "other_classes":
            negative = [n for n in range(len(z)) if classes[n] != classes[i]]
        else:
            negative = [n for n in range(len(z)) if include_self or n != i]
        others = [z[n] for n in negative]
        others += [past[m] for m, label in enumerate(past_labels) if negatives == "all" or label != classes[i]]
        if not positive or not others:
            continue
        s = torch.stack([z[i] @ other for other in others])
        weights = eta(s if differentiate else s.detach())
        weights = weights / weights.sum()
        for j in positive:
            losses.append(LINKS[link]((s - z[i] @ z[j]) / temperature, weights, len(others)))
    return torch.stack(losses).mean() if losses else z.sum() * 0


def paper_estimate(z, labels, negatives, beta, num_negatives, generator):
    """The paper's code: draws with replacement for each anchor and positive; an anchor is its own positive."""
    total, count = 0.0, 0
    for i in range(len(z)):
        s = z @ z[i]
        positive = torch.nonzero(labels == labels[i]).squeeze(1)
        negative = (
            torch.nonzero(labels != labels[i]).squeeze(1) if negatives == "other_classes" else torch.arange(len(z))
        )
        weights = torch.softmax(beta * s[negative], 0)
        for j in positive:
            drawn = negative[torch.multinomial(weights, num_negatives, replacement=True, generator=generator)]
            total -= torch.log(s[j].exp() / (s[j].exp() + s[drawn].exp().mean())).item()
            count += 1
    return total / count
