"""What a model's weights are: a checksum that params.yaml may pin, so that dvc.lock knows them."""

import hashlib
from pathlib import Path

from ltgc.pipeline import files
from ltgc.pipeline.errors import LTGCError
from ltgc.pipeline.terminal import console


def fingerprint(path: Path) -> str:
    """sha256 of a file; of a folder, what `find * -type f | LC_ALL=C sort | xargs sha256sum | sha256sum` prints.

    Files and folders whose name begins with a dot are left out. Raises OSError.
    """
    if path.is_file():
        return f"sha256:{files.sha256(path)}"
    names = sorted(file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file())
    seen = [name for name in names if not any(part.startswith(".") for part in name.split("/"))]
    sums = "".join(f"{files.sha256(path / name)}  {name}\n" for name in seen)
    return f"sha256:{hashlib.sha256(sums.encode()).hexdigest()}"


def unpinned(key: str, what: str, found: str) -> str:
    """Say what `key` would pin, which is returned."""
    console.print(f"{what} is not pinned: {key}: {found}", markup=False, soft_wrap=True)
    return found


def check(key: str, what: str, found: str, pin: str) -> None:
    """Raises LTGCError where `key` of params.yaml pins something else."""
    if found != pin:
        raise LTGCError(f"{key}: {what} is {found}, not {pin}; put back what was meant, or correct the key")
