"""Write .safetensors files with the permissions and the errors of other files."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def safetensors_file(path: Path) -> Iterator[None]:
    """Surround the call of safetensors that writes a new file.

    safetensors makes a file that only its owner can read, and raises its own error on a full disk.

    Raises:
        OSError: If the file cannot be written.

    Example:
        >>> import tempfile
        >>> import torch
        >>> from safetensors.torch import load_file, save_file
        >>> path = Path(tempfile.mkdtemp()) / "z.safetensors"
        >>> with safetensors_file(path):
        ...     save_file({"z": torch.ones(2)}, path)
        >>> load_file(path)
        {'z': tensor([1., 1.])}
    """
    from safetensors import SafetensorError  # noqa: PLC0415 - optional

    path.touch()
    mode = path.stat().st_mode
    try:
        yield
    except SafetensorError as error:
        reason = re.search(r"I/O error: (.*) \(os error (\d+)\)", str(error))
        raise (OSError(int(reason[2]), reason[1]) if reason else OSError(str(error))) from error
    path.chmod(mode)
