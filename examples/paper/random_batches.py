"""Why balanced batches: neural collapse minimizes the loss of every balanced batch, but of no random batch.

    python examples/paper/random_batches.py

At neural collapse a random batch has the same loss as a balanced one, and the average loss over batches has its minimum
there. But the minimum of a single random batch lies elsewhere, below the bound: its frequent classes are further apart,
at the expense of its rare ones. So its gradient does not vanish at neural collapse, unlike that of a balanced batch.
This gradient is noise, and with a constant step size training never settles.
"""

import warnings

import torch

from nc_lightning.geometry import measure, simplex_etf, unit_ball
from nc_lightning.losses import HSCLLoss

CLASSES, DIM, BATCH = 100, 99, 500


def batch_labels(balanced: bool, generator: torch.Generator) -> torch.Tensor:
    """Labels of a batch of digit pairs: five of each class, or a random draw from 30 of each class."""
    if balanced:
        return torch.arange(CLASSES).repeat_interleave(BATCH // CLASSES)
    return torch.arange(CLASSES).repeat_interleave(30)[torch.randperm(30 * CLASSES, generator=generator)[:BATCH]]


def gradient_at_collapse(loss: HSCLLoss, labels: torch.Tensor) -> torch.Tensor:
    """Gradient of the loss of a batch with respect to the class means (C, d) at the simplex, along the sphere."""
    means = simplex_etf(CLASSES, DIM).double().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(means[labels], labels), means)
    along = (gradient * means).sum(1, keepdim=True) * means
    return (gradient - along).detach()


def minimum(loss: HSCLLoss, labels: torch.Tensor) -> tuple[float, torch.Tensor]:
    """Minimize the loss of a batch over class means in the unit ball, starting at the simplex; return both."""
    means = (simplex_etf(CLASSES, DIM).double() + 1e-3 * torch.randn(CLASSES, DIM).double()).requires_grad_()
    optimizer = torch.optim.LBFGS([means], max_iter=500, line_search_fn="strong_wolfe", tolerance_change=1e-14)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        value: torch.Tensor = loss(means[labels], labels)
        value.backward()
        return value

    optimizer.step(closure)
    return float(loss(means.detach()[labels], labels)), unit_ball(means.detach())


def main(batches: int = 100) -> dict[str, float]:
    """Print and return the numbers behind the text above."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    found: dict[str, float] = {}
    for beta in (0.0, 10.0):
        loss = HSCLLoss(beta=beta)
        bound = loss.lower_bound(CLASSES)
        assert bound is not None
        print(f"beta {beta:g}, bound {bound:.6f}")
        for balanced in (True, False):
            kind = "balanced" if balanced else "random"
            all_labels = [batch_labels(balanced, generator) for _ in range(batches)]
            gradients = torch.stack([gradient_at_collapse(loss, labels) for labels in all_labels])
            one, mean = float(gradients.norm(dim=(1, 2)).mean()), float(gradients.mean(0).norm())
            value, means = minimum(loss, all_labels[0])
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a random batch has classes of a single sample
                geometry = measure(means[all_labels[0]], all_labels[0])
            print(
                f"  {kind:9} gradient at collapse {one:.1e}, of the mean of {batches} batches {mean:.1e}; "
                f"minimum of one {value - bound:+.1e} from the bound, there effective rank "
                f"{geometry['effective_rank']:.2f}, equal inner product {geometry['equal_inner_product']:.1e}, "
                f"zero sum {geometry['zero_sum']:.1e}"
            )
            found |= {f"gradient/{kind}/{beta:g}": one, f"minimum/{kind}/{beta:g}": value - bound}
            found |= {f"mean_gradient/{kind}/{beta:g}": mean}
    return found


if __name__ == "__main__":
    main()
