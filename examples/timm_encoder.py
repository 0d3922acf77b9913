"""HSCL with an encoder from timm: pip install 'nc-lightning[timm]'.

python examples/timm_encoder.py [EPOCHS]
"""

import sys

from lightning.pytorch import Trainer

from nc_lightning import HSCL
from nc_lightning.data import DigitsDataModule
from nc_lightning.encoders import ProjectionHead, TimmEncoder


def main(max_epochs: int = 2) -> float:
    """Train for a few epochs, and return the loss."""
    data = DigitsDataModule()
    encoder = TimmEncoder(
        "vit_tiny_patch16_224",
        data.input_shape,
        options={"img_size": 8, "patch_size": 2, "embed_dim": 48, "depth": 2, "num_heads": 3},
    )
    model = HSCL(encoder=encoder, projector=ProjectionHead, num_classes=data.num_classes)
    trainer = Trainer(max_epochs=max_epochs, logger=False, enable_checkpointing=False)
    trainer.fit(model, data)
    loss = float(trainer.callback_metrics["loss/train"])
    print(f"loss {loss:.3f}, at neural collapse {float(trainer.callback_metrics['loss/bound']):.3f}")
    return loss


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:2]))
