import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader, TensorDataset

from nc_lightning.metrics import NC1, NeuralCollapse


class Logs(LightningModule):
    def __init__(self, metric):
        super().__init__()
        self.metric = metric

    def validation_step(self, batch, batch_idx):
        self.metric.update(*batch)
        self.log_dict(self.metric)


@pytest.mark.parametrize("kind", [NC1, NeuralCollapse])
def test_a_metric_in_log_dict_is_answered_with_what_to_write(kind):
    loader = DataLoader(TensorDataset(torch.randn(6, 4), torch.arange(6) % 3), batch_size=6)
    trainer = Trainer(logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)
    with pytest.raises(TypeError, match=rf"log_dict: got {kind.__name__} .* self.log_dict\(metric.compute\(\)\)"):
        trainer.validate(Logs(kind(3, 4)), loader, verbose=False)
