import json
import sys
from pathlib import Path

import huggingface_hub
import pytest
import torch
from torch import nn

from nc_lightning.encoders import MLP
from nc_lightning.export import export
from nc_lightning.hub import HubEncoder
from tests.export.runs import IMAGES, expected, make_run


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "run", MLP, {"input_shape": [3, 32, 32], "hidden_features": [8]})


class LocalHub:
    """A stand-in of the Hub: repositories are folders."""

    root: Path

    def __init__(self, **_):
        pass

    def create_repo(self, repo_id, **_):
        (self.root / repo_id).mkdir(parents=True)
        return huggingface_hub.RepoUrl(f"https://huggingface.co/{repo_id}")

    def upload_folder(self, repo_id, folder_path, **_):
        for path in Path(folder_path).iterdir():
            (self.root / repo_id / path.name).write_bytes(path.read_bytes())
        return f"https://huggingface.co/{repo_id}"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    LocalHub.root = tmp_path / "hub"

    def download(repo_id, filename, **_):
        return str(LocalHub.root / repo_id / filename)

    monkeypatch.setattr("huggingface_hub.hub_mixin.HfApi", LocalHub)
    monkeypatch.setattr("huggingface_hub.hub_mixin.hf_hub_download", download)
    monkeypatch.setattr("nc_lightning.hub.snapshot_download", lambda repo_id, **_: str(LocalHub.root / repo_id))
    return LocalHub.root


def test_push_to_the_hub_and_back(run, hub):
    pushed = HubEncoder.from_run(run)
    assert pushed.push_to_hub("me/encoder") == "https://huggingface.co/me/encoder"
    names = {path.name for path in (hub / "me" / "encoder").iterdir()}
    assert names == {path.name for path in export(run, "safetensors").iterdir()}
    for name in names:
        ours, theirs = (run / "encoder-safetensors" / name).read_bytes(), (hub / "me" / "encoder" / name).read_bytes()
        assert json.loads(ours) == json.loads(theirs) if name.endswith("json") else ours == theirs
    pulled = HubEncoder.from_pretrained("me/encoder")
    with torch.no_grad():
        torch.testing.assert_close(pulled(IMAGES), expected(run), rtol=0, atol=1e-6)
    assert not pulled.training
    assert pulled.card == pushed.card


def test_a_folder_of_export_and_back_to_a_folder(run, tmp_path):
    encoder = HubEncoder.from_pretrained(export(run, "safetensors"))
    with torch.no_grad():
        torch.testing.assert_close(encoder(IMAGES), expected(run), rtol=0, atol=1e-6)
    encoder.save_pretrained(tmp_path / "again")
    again = HubEncoder.from_pretrained(tmp_path / "again")
    assert again.card == encoder.card
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), encoder.parameters(), strict=True))
    with pytest.raises(
        FileExistsError, match=r"^save_directory: got '.*again', which has files, expected a new folder"
    ):
        encoder.save_pretrained(tmp_path / "again")


def changed(folder, **settings):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **settings}))
    return folder


def test_a_repository_cannot_have_any_class_created(run, tmp_path):
    folder = export(run, "safetensors")
    (tmp_path / "evil.py").write_text("raise SystemExit('code of a repository has run')\n")
    sys.path.insert(0, str(tmp_path))
    for class_path in ("evil.Model", "subprocess.Popen", "nc_lightning.encoders.no", "Model"):
        changed(folder, encoder={"class_path": class_path, "init_args": {}})
        with pytest.raises(ValueError, match=rf"^encoder: got {class_path}, expected an encoder of nc_lightning"):
            HubEncoder.from_pretrained(folder)
    sys.path.remove(str(tmp_path))


def test_damaged_and_other_folders(run, tmp_path):
    folder = export(run, "safetensors")
    changed(folder, encoder={"class_path": "nc_lightning.encoders.MLP", "init_args": {"input_shape": [4]}})
    with pytest.raises(ValueError, match=r"model\.safetensors is missing, damaged or of another encoder: Error"):
        HubEncoder.from_pretrained(folder)
    (folder / "model.safetensors").write_bytes(b"no")
    with pytest.raises(ValueError, match=r"model\.safetensors is missing, damaged or of another encoder"):
        HubEncoder.from_pretrained(folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"^from_pretrained: got '.*empty', whose config\.json has no encoder"):
        HubEncoder.from_pretrained(tmp_path / "empty")


def test_a_user_defined_encoder_is_created_once_its_module_is_imported(tmp_path, monkeypatch):
    class Own(nn.Flatten):
        out_features = 3 * 32 * 32

    monkeypatch.setattr(sys.modules[__name__], "Own", Own, raising=False)
    monkeypatch.setitem(sys.modules, "tests.test_hub", sys.modules[__name__])
    run = make_run(tmp_path / "run", Own, {}, "tests.test_hub.Own")
    assert HubEncoder.from_pretrained(export(run, "safetensors"))(IMAGES).shape == (6, 3 * 32 * 32)
