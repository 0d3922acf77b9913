"""Online k-NN: the accuracy of the nearest training features on held-out ones, from the monitor's passes."""

from collections.abc import Callable, Mapping, Sequence

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor

from nc_lightning.callbacks.geometry_monitor import GeometryMonitor
from nc_lightning.callbacks.measurement.layers import OUTPUT, check_layers
from nc_lightning.callbacks.sources import callbacks_of
from nc_lightning.checks import check_count, check_number, separated_names
from nc_lightning.distributed.collectives import all_gather_objects
from nc_lightning.evaluation.knn import TEMPERATURE, voted
from nc_lightning.evaluation.neighbors import nearest_neighbors

QUERIES = 4096
"""Sets of k neighbors that a process receives at a time: those of each query from each process."""


class OnlineKNN(Callback):
    """Log the accuracy of a weighted k-NN classifier of held-out features, ``knn/<set>`` and ``knn/<layer>/<set>``.

    The neighbors are training features by cosine similarity, and vote with the weight exp(similarity / temperature), as
    in `nc_lightning.evaluation.knn_predict`. The features are those that a `GeometryMonitor` computes when it measures:
    no loader and no network runs a second time, and the training features have no augmentation. ``knn/val`` and
    ``knn/test`` are of the module's output ``z``. A set or a training set without labels gives no value; samples of
    classes absent from training count as wrong.

    Memory on the device of the features, in their precision: N d + M d numbers for N training and M held-out features
    of each layer, 98 MiB for the training set of CIFAR at d = 512 in float32. Of several processes, each holds its
    share; queries travel between them, and all log the value of a single process, up to equal similarities.

    Args:
        k: Number of neighbors; at most all training samples vote.
        every_n_epochs: Number of epochs between values, which are computed when the monitor next measures.
        layers: Names of the layers, ``z`` for the output of the module; as a list or separated by commas.
        temperature: Temperature of the votes.

    Raises:
        ValueError: If an argument is out of its range, there is no such layer, or the trainer has no
            `GeometryMonitor`.

    Source:
        Wu, Xiong, Yu, Lin (2018), Unsupervised feature learning via non-parametric instance discrimination.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> trainer = Trainer(callbacks=[GeometryMonitor(), OnlineKNN(layers=["encoder"])], logger=False)
    """

    def __init__(
        self,
        k: int = 20,
        every_n_epochs: int = 1,
        layers: Sequence[str] | str = ("encoder", OUTPUT),
        temperature: float = TEMPERATURE,
    ) -> None:
        check_count("k", k)
        check_count("every_n_epochs", every_n_epochs)
        check_number("temperature", temperature, above=0)
        self.k, self.every_n_epochs, self.temperature = k, every_n_epochs, temperature
        self.layers = separated_names("layers", layers)
        self._epoch: int | None = None
        self._warned = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse a trainer without a monitor."""
        if not any(isinstance(callback, GeometryMonitor) for callback in callbacks_of(trainer)):
            raise ValueError(
                "OnlineKNN: got no GeometryMonitor among the callbacks, expected one whose features to use: "
                "callbacks=[GeometryMonitor(), OnlineKNN()]"
            )
        self._epoch, self._warned = None, False

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse layers that the module does not have."""
        check_layers("OnlineKNN: layers", pl_module, self.layers)

    def feature_reader(self, trainer: Trainer, epoch: int) -> "KNNReader | None":
        """Return a reader for the measurement after ``epoch`` epochs, or None if no value is due."""
        fitting = trainer.state.fn == TrainerFn.FITTING
        if fitting and self._epoch is not None and epoch - self._epoch < self.every_n_epochs:
            return None
        self._epoch = epoch if fitting else self._epoch
        return KNNReader(self.layers, self.k, self.temperature, self._warn)

    def _warn(self, message: str) -> None:
        if not self._warned:
            self._warned = True
            rank_zero_warn(f"OnlineKNN: {message}")


class KNNReader:
    """Features and labels of one measurement, by set and layer, and the accuracy of their nearest neighbors.

    Args:
        layers: Names of the layers.
        k: Number of neighbors.
        temperature: Temperature of the votes.
        warn: Function that shows a message.
    """

    def __init__(self, layers: Sequence[str], k: int, temperature: float, warn: Callable[[str], None]) -> None:
        self.layers, self.k, self.temperature, self.warn = tuple(layers), k, temperature, warn
        self._features: dict[tuple[str, str], list[Tensor]] = {}
        self._labels: dict[str, list[Tensor]] = {}

    def update(self, name: str, features: Mapping[str, Tensor], labels: Tensor) -> None:
        """Keep the features of a batch, unless it has no labels."""
        if bool((labels < 0).any()):
            return
        self._labels.setdefault(name, []).append(labels.clone())
        for layer in self.layers:
            self._features.setdefault((name, layer), []).append(features[layer])

    def compute(self) -> dict[str, float]:
        """Return the accuracy on each held-out set by its logged key, on all processes."""
        counts = {name: sum(map(len, labels)) for name, labels in self._labels.items()}
        dims = {layer: parts[0].shape[1] for (_, layer), parts in self._features.items()}
        shares = all_gather_objects((counts, dims))
        sets = list(dict.fromkeys(name for share, _ in shares for name in share if name != "train"))
        known = sum(share.get("train", 0) for share, _ in shares)
        if sets and known == 0:
            self.warn("got no training samples with labels, so that there are no neighbors and no accuracy")
            return {}
        if self.k > known and sets:
            self.warn(f"got k = {self.k}, expected at most {known}; all training samples vote")
        dims = {layer: dim for _, of_share in shares for layer, dim in of_share.items()}
        values = {}
        for layer in self.layers if sets else ():
            bank, bank_labels = self._take("train", layer, dims[layer])
            for name in sets:
                at_once = max(1, QUERIES // len(shares) ** 2)
                blocks = max(-(-share.get(name, 0) // at_once) for share, _ in shares)
                queries, labels = self._take(name, layer, dims[layer])
                correct = 0
                for start in range(0, blocks * at_once, at_once):
                    block = slice(start, start + at_once)
                    correct += self._correct(queries[block], labels[block], bank, bank_labels)
                key = f"knn/{name}" if layer == OUTPUT else f"knn/{layer}/{name}"
                values[key] = correct / sum(share.get(name, 0) for share, _ in shares)
        return values

    def _take(self, name: str, layer: str, dim: int) -> tuple[Tensor, Tensor]:
        """Return features (N, d) and labels (N,) of this process, and forget the features."""
        parts = self._features.pop((name, layer), None)
        if parts is None:
            return torch.zeros(0, dim), torch.zeros(0, dtype=torch.int64)
        return torch.cat(parts), torch.cat(self._labels[name]).to(parts[0].device, torch.int64)

    def _correct(self, queries: Tensor, labels: Tensor, bank: Tensor, bank_labels: Tensor) -> int:
        """Return the number of correct predictions for a block of queries of all processes."""
        # Clones: a view is sent with all of its storage.
        everyone = all_gather_objects((queries.clone().cpu(), labels.clone().cpu()))
        asked, truth = (torch.cat(parts).to(bank.device) for parts in zip(*everyone, strict=True))
        near, indices = torch.zeros(len(asked), 0), torch.zeros(len(asked), 0, dtype=torch.int64)
        if len(bank) > 0:
            near, indices = nearest_neighbors(asked.to(bank.dtype), bank, min(self.k, len(bank)))
        found = all_gather_objects((near.cpu(), bank_labels[indices.to(bank.device)].cpu()))
        similarities, votes = (torch.cat(parts, 1) for parts in zip(*found, strict=True))
        best = similarities.sort(dim=1, descending=True, stable=True).indices[:, : self.k]
        similarities, votes = similarities.gather(1, best), votes.gather(1, best)
        classes = voted(similarities, votes, int(votes.max()) + 1, self.temperature)
        return int((classes == truth.cpu()).sum())
