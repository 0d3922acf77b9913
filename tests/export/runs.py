"""Runs as nc-train leaves them, without the training."""

import torch
import yaml

from nc_lightning import HSCL
from nc_lightning.export.encoder import trained_encoder

IMAGES = torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))
DATA = {"class_path": "nc_lightning.data.LatentClassDataModule", "init_args": {}}


def make_run(folder, encoder, init_args, class_path=None, mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3)):
    """Write a checkpoint and a config for an untrained encoder whose BatchNorms have seen data; return the folder."""
    made = encoder(**init_args)
    for part in made.modules():
        if isinstance(part, torch.nn.modules.batchnorm._BatchNorm):
            part.running_mean.normal_(std=0.1)
            part.running_var.uniform_(0.5, 2)
    module = HSCL(encoder=made, num_classes=10)
    if mean is not None:
        module.preprocess.mean, module.preprocess.std = torch.tensor(mean), torch.tensor(std)
    module.preprocess.known = True
    checkpoint = {"state_dict": module.state_dict(), "epoch": 4}
    module.on_save_checkpoint(checkpoint)
    settings = {"class_path": class_path or f"nc_lightning.encoders.{encoder.__name__}", "init_args": init_args}
    checkpoint["hyper_parameters"] = {"_class_path": "nc_lightning.HSCL", "num_classes": 10, "encoder": settings}
    (folder / "checkpoints").mkdir(parents=True)
    torch.save(checkpoint, folder / "checkpoints" / "last.ckpt")
    model = {"class_path": "nc_lightning.HSCL", "init_args": {"encoder": settings}}
    (folder / "config.yaml").write_text(yaml.safe_dump({"model": model, "data": DATA}))
    return folder


def expected(run, images=IMAGES):
    """Features of the loaded encoder itself."""
    trained = trained_encoder(run)
    with torch.no_grad():
        return trained.encoder.eval()(trained.preprocess(images))
