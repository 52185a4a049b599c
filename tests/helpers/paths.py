"""Where the repository is, and the real data that may lie beside it."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared"  # users do not have it: a test that reads it skips where it is not there


def link_prompts(folder: Path) -> None:
    """Give stages that run in `folder` the repository's prompts."""
    if not (folder / "prompts").exists():
        (folder / "prompts").symlink_to(ROOT / "prompts", target_is_directory=True)
