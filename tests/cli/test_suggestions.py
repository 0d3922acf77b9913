"""Misspelled options, classes and values are answered with what was probably meant."""

import re
import sys
from argparse import ArgumentError

import pytest
from jsonargparse import ArgumentParser
from lightning.pytorch import Callback, LightningDataModule
from lightning.pytorch.loggers import Logger
from torchvision import models

from nc_lightning.callbacks import GeometryMonitor
from nc_lightning.cli import main
from nc_lightning.cli.command_error import CommandError
from nc_lightning.cli.errors import explain
from nc_lightning.objectives import ContrastiveObjective

RESNET18 = (
    r"expected the class of an encoder: --model.encoder ResNet --model.encoder.depth 18, "
    r"--model.encoder TorchvisionEncoder --model.encoder.name resnet18, "
    r"or --model.encoder TimmEncoder --model.encoder.name resnet18"
)
MISTAKES = {
    "--model.encoder resnet18": f"--model.encoder: got 'resnet18', {RESNET18}",
    "--model.encoder vgg11bn": ".*TorchvisionEncoder --model.encoder.name vgg11_bn, or .*",
    "--model.encoder vit_tiny": ".*: --model.encoder TimmEncoder --model.encoder.name vit_tiny_patch16_224",
    "--model.encoder SmalCNN": "--model.encoder: got 'SmalCNN', .*; did you mean SmallCNN?",
    "--model.encoder nc_lightning.encoders.MPL": ".*; did you mean MLP?",
    "--model.encoder qqq": "--model.encoder: got 'qqq', expected MLP, .*, or the path of a class",
    "--model.encoder.hidden_featurs [3]": ".*: MLP has no such option; did you mean --model.encoder.hidden_features?",
    "--model.betta 1": "--model.betta: HSCL has no such option; did you mean --model.beta?",
    "--model.xyz 1": "--model.xyz: HSCL has no such option; --model.help HSCL lists its options",
    "--model HSLC": "--model: got 'HSLC', .*; did you mean HSCL?",
    "--model nc_lightnin.HSCL": "--model: got 'nc_lightnin.HSCL', .*; did you mean HSCL?",
    "--model.optimizer Addam": ".*; did you mean Adam?",
    "--model.optimizer.lrr 1": "--model.optimizer.lrr: Adam has no such option; did you mean --model.optimizer.lr?",
    "--model.lr_scheduler HoldThenDecai": ".*; did you mean HoldThenDecay?",
    "--model.link Tripplet": ".*; did you mean Triplet?",
    "--model.link.help InfoNCEE": "--model.link.help: got 'InfoNCEE', expected .*; did you mean InfoNCE?",
    "--model.help HSLC": "--model.help: got 'HSLC', expected .*; did you mean HSCL?",
    "--data.help Digits": "--data.help: got 'Digits', expected .*; did you mean DigitsDataModule?",
    "--model.normalization unit_bal": ".*: got 'unit_bal', expected one of unit_ball, .*; did you mean unit_ball?",
    "--data DigitDataModule": ".*; did you mean DigitsDataModule?",
    "--data.augmentation SimCLRR": ".*; did you mean SimCLR?",
    "--callbacks OnlineKN": ".*; did you mean OnlineKNN?",
    "--callbacks OnlineKNN --callbacks.kk 3": "--callbacks.kk: OnlineKNN has no such option; .* --callbacks.k?",
    "--logger CSVLoger": ".*; did you mean CSVLogger?",
    "--geometry.measures headlin": ".*: got 'headlin', expected one of headline, all; did you mean headline?",
}
OF_OWN = {
    "--model.encoder mine.MyEncodr": ".*, expected .*; did you mean mine.MyEncoder?",
    "--model.encoder mien.MyEncoder": ".*, but there is no module mien; did you mean mine.MyEncoder?",
    "--model.encoder qqq.MyEncoder": ".*, but there is no module qqq; expected MODULE.CLASS .*",
    "--model.encoder broken.X": ".*, whose module broken cannot be imported: SyntaxError: .*broken.py, line 1.*",
    "--model.encoder needs.X": ".*, whose module needs cannot be imported: .*: No module named 'qqqq'",
    "--model mine.MyModl": ".*; did you mean mine.MyModel?",
    "--data broken.X": ".*, whose module broken cannot be imported: SyntaxError: .*broken.py, line 1.*",
}
IN_CONFIGS = {
    "{model: {init_args: {encoder: {class_path: MLP, init_args: {hidden_featurs: [3]}}}}}": "hidden_features?",
    "{model: {init_args: {encoder: resnet18}}}": RESNET18,
    "{model: {betta: 3}}": "did you mean --model.beta?",
    "{model: {class_pth: HSCL}}": "did you mean --model.class_path?",
    "{data: {class_path: DigitDataModule}}": "did you mean DigitsDataModule?",
    "{callbacks: [{class_path: OnlineKN}]}": "did you mean OnlineKNN?",
    "{callbacks: [{class_path: OnlineKNN, init_args: {kk: 3}}]}": "did you mean --callbacks.k?",
}


@pytest.fixture(scope="module")
def parser():
    parser = ArgumentParser(exit_on_error=False, allow_abbrev=False)
    parser.add_argument("--config", action="config")
    parser.add_subclass_arguments(ContrastiveObjective, "model", fail_untyped=False)
    parser.add_subclass_arguments(LightningDataModule, "data", fail_untyped=False)
    parser.add_argument("--callbacks", type=list[Callback] | Callback | None)
    parser.add_argument("--logger", type=Logger | bool | None)
    parser.add_class_arguments(GeometryMonitor, "geometry")
    return parser


def refused(parser, *arguments):
    given = ["--model=HSCL", "--model.num_classes=10", "--model.encoder=MLP", "--data=DigitsDataModule", *arguments]
    with pytest.raises(ArgumentError) as error:
        parser.parse_args(given)
    return explain(error.value)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_on_the_command_line(parser, mistake):
    assert re.fullmatch(MISTAKES[mistake].replace("?", r"\?"), message := refused(parser, *mistake.split())), message


@pytest.mark.parametrize("mistake", OF_OWN)
def test_a_mistake_in_the_path_of_an_own_class(parser, mistake, in_tmp, monkeypatch):
    monkeypatch.syspath_prepend(in_tmp)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    classes = "class MyEncoder(MLP):\n    pass\n\n\nclass MyModel(HSCL):\n    pass\n"
    (in_tmp / "mine.py").write_text(f"from nc_lightning import HSCL\nfrom nc_lightning.encoders import MLP\n{classes}")
    (in_tmp / "broken.py").write_text("def (")
    (in_tmp / "needs.py").write_text("import qqqq")
    option, name = mistake.split()
    message = refused(parser, option, name)
    assert re.fullmatch(f"{option}: got '{name}'{OF_OWN[mistake]}".replace("?", r"\?"), message), message


@pytest.mark.parametrize("config", IN_CONFIGS)
def test_a_mistake_in_a_config(parser, config, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(config)
    assert refused(parser, f"--config={path}").endswith(IN_CONFIGS[config])


def test_right_options_are_accepted(parser):
    chosen = ["--model=HSCL", "--model.num_classes=10", "--model.encoder=TorchvisionEncoder"]
    config = parser.parse_args([*chosen, "--model.encoder.name=resnet18", "--data=DigitsDataModule"])
    assert config.model.init_args.encoder.class_path == "nc_lightning.encoders.TorchvisionEncoder"
    assert config.model.init_args.encoder.init_args.name in models.list_models()


LINES = {
    "--trainer.max_epoch=1": "nc-train fit has no option --trainer.max_epoch; did you mean --trainer.max_epochs?",
    "--trainr.max_epohcs=1": ".*; did you mean --trainer.max_epochs?",
    "--epochs=3": ".*; did you mean --trainer.max_epochs?",
    "--seed=3": ".*; did you mean --seed_everything?",
    "--model.beta": "--model.beta: got no value, expected one after it",
    "--lr=1": ".*; did you mean --model.optimizer.lr?",
    "--model.encoder=torchvision.models.resnet18": f".*: got 'torchvision.models.resnet18', {RESNET18}",
    "--xyz=1": "nc-train fit has no option --xyz; nc-train fit --help lists all",
    "hucl.yaml": "nc-train fit: got 'hucl.yaml', expected an option before it, such as --config hucl.yaml",
    "--config=mine.yaml": "nc-train fit has no key trainer.max_epohcs; did you mean trainer.max_epochs?",
}


@pytest.mark.parametrize("argument", LINES)
def test_an_option_that_no_subcommand_has(argument, in_tmp, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["nc-train"])
    (in_tmp / "mine.yaml").write_text("trainer: {max_epohcs: 3}")
    with pytest.raises(CommandError) as error:
        main(["fit", "--config=hscl.yaml", argument])
    assert re.fullmatch(LINES[argument].replace("?", r"\?"), str(error.value)), error.value
