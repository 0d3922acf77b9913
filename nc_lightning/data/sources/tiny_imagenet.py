"""Tiny-ImageNet, whose validation images are in one folder with their classes in a text file."""

from pathlib import Path

from torchvision.datasets.utils import download_and_extract_archive

from nc_lightning.data.base import Split
from nc_lightning.data.files.finding import find_images
from nc_lightning.data.sources.image_files import ImageFileOptions, ImageFiles, ImageFilesDataModule
from nc_lightning.data.sources.images import data_root
from nc_lightning.data.sources.torchvision_sets import check_is_there, download_whole
from nc_lightning.options import Unpack

FOLDER = "tiny-imagenet-200"
NUM_CLASSES = 200
URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
MD5 = "90528d7ca1a48142e341f4ef8d21d0de"


class TinyImageNetDataModule(ImageFilesDataModule):
    """Load Tiny-ImageNet: 100,000 training images 64x64 of 200 classes; its 10,000 validation images are the test set.

    Its own test set has no labels. As in all data modules here, the validation set is split off the training set.

    Args:
        root: Folder that contains ``tiny-imagenet-200``; None for ``$NC_DATA_DIR``, or else the folder ``data``.
        download: Whether to download the data set if it is missing.
        url: URL of a mirror to download from; None for the authors' server.
        kwargs: Arguments of `ImageFilesDataModule` and `ImageDataModule`.

    Raises:
        FileNotFoundError: In `setup`, if the data set is missing.
        ValueError: If it does not have 200 classes with images, or an argument is out of its range.

    Example:
        >>> data = TinyImageNetDataModule(classes=list(range(10)), batch_size=100)
        >>> data.num_classes, data.input_shape
        (10, (3, 64, 64))
    """

    input_shape = (3, 64, 64)

    def __init__(
        self,
        root: str | None = None,
        download: bool = False,
        url: str | None = None,
        **kwargs: Unpack[ImageFileOptions],
    ) -> None:
        super().__init__(**kwargs)
        self.root = data_root(root)
        self.download = download
        self.url = url or URL
        if self.image_size is not None:
            self.input_shape = (3, self.image_size, self.image_size)
        self.choose_classes(range(NUM_CLASSES))

    def prepare_data(self) -> None:
        """Download the data set if requested and missing."""
        if self.download and not (self.root / FOLDER).exists():
            download_whole(self.root, FOLDER, lambda place: download_and_extract_archive(self.url, place, md5=MD5))

    def list_files(self) -> dict[Split, ImageFiles]:
        """Return the training images by folder, and the validation images by their annotations."""
        place = self.root / FOLDER
        check_is_there("Tiny-ImageNet", self.root, place, self.download)
        classes = sorted(path.name for path in (place / "train").iterdir() if path.is_dir())
        if len(classes) != NUM_CLASSES:
            raise ValueError(f"root: got {len(classes)} classes in {place / 'train'}, expected {NUM_CLASSES}")
        self.class_names = [classes[label] for label in self._labels]
        number = {name: i for i, name in enumerate(classes)}
        train = [
            (path, number[name]) for name in classes for path in find_images(place / "train" / name, self.passed_over)
        ]
        self.origins |= {"train": str(place / "train"), "test": str(place / "val")}
        return {"train": self.files_of(train), "test": self.files_of(_annotated(place / "val", number))}


def _annotated(folder: Path, number: dict[str, int]) -> list[tuple[Path, int]]:
    annotations = folder / "val_annotations.txt"
    if not annotations.is_file():
        raise FileNotFoundError(f"root: got no {annotations}, expected the classes of the validation images there")
    rows = []
    for line in annotations.read_text(encoding="utf-8").splitlines():
        name, _, label = line.strip("\ufeff\r").partition("\t")
        label = label.partition("\t")[0].strip()
        if label not in number:
            raise ValueError(f"root: got the class {label!r} in {annotations}, which has no folder in train")
        rows.append((folder / "images" / name, number[label]))
    found = len({label for _, label in rows})
    if found != len(number):
        raise ValueError(f"root: got {found} classes in {annotations}, expected {len(number)}")
    return sorted(rows)
