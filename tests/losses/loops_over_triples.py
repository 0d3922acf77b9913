"""The four losses as loops over triples (anchor, positive, negative), straight from their definition."""

import torch


def loop_loss(
    z, labels, negatives, beta, temperature, normalization="unit_ball", differentiate=False, include_self=False
):
    norms = z.norm(dim=1, keepdim=True)
    z = {"unit_ball": z / norms.clamp(min=1), "unit_sphere": z / norms, "none": z}[normalization]
    losses = []
    for i in range(len(z)):
        positive = [j for j in range(len(z)) if labels[j] == labels[i] and (include_self or j != i)]
        if negatives == "other_classes":
            negative = [n for n in range(len(z)) if labels[n] != labels[i]]
        else:
            negative = [n for n in range(len(z)) if include_self or n != i]
        if not positive or not negative:
            continue
        s = torch.stack([z[i] @ z[n] for n in negative])
        eta = torch.exp(beta * ((s if differentiate else s.detach()) - s.detach().max()))
        weights = eta / eta.sum()
        for j in positive:
            t = (s - z[i] @ z[j]) / temperature
            losses.append(torch.log(1 + sum(w * torch.exp(x) for w, x in zip(weights, t, strict=True))))
    return torch.stack(losses).mean() if losses else z.sum() * 0


def paper_estimate(z, labels, negatives, beta, num_negatives, generator):
    """The paper's code: per anchor, draws with replacement for each positive; an anchor is its own positive."""
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
