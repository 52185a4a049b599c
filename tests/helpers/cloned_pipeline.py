"""A git clone of the working tree with a world of five species, reproduced once by a real `dvc repro`."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from helpers import warm_commands
from helpers.paths import ROOT

SPECIES = {
    "Leucanthemum vulgare": 101,
    "Rudbeckia hirta": 20,
    "Tripleurospermum inodorum": 6,
    "Papaver dubium": 5,
    "Aquilegia pubescens": 4,
}
METHODS = ["clip_finetune", "balancemix", "ltgc_plus"]
TARGET = 10


def run(clone: Path, *command: str, check: bool = True) -> subprocess.CompletedProcess:
    env = {k: v for k, v in os.environ.items() if not k.startswith(("DVC_", "OPENAI_"))}
    env["PATH"] = os.pathsep.join([warm_commands.folder(), str(Path(sys.executable).parent), env["PATH"]])
    done = subprocess.run(command, cwd=clone, env=env, capture_output=True, text=True)
    assert not check or done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done


def commit(clone: Path, message: str) -> None:
    run(clone, "git", "add", "-A")
    run(clone, "git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", message)


def set_params(clone: Path, **sections: dict) -> None:
    params = yaml.safe_load((clone / "params.yaml").read_text())
    for key, value in sections.items():
        params[key] = params[key] | value if isinstance(value, dict) else value
    (clone / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))


def digest(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def reproduced(clone: Path) -> Path:
    """Make the clone at `clone`: one commit of the world, one of its results."""
    files = run(ROOT, "git", "ls-files", "-co", "--exclude-standard").stdout.split("\n")
    for name in filter(None, files):
        if (ROOT / name).is_file():
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, clone / name)
    world = yaml.safe_load((ROOT / "embedded/wildflowers/species.yaml").read_text())
    chosen = [s | {"train": SPECIES[s["name"]]} for s in world if s["name"] in SPECIES]
    (clone / "small_world").mkdir()
    (clone / "small_world/species.yaml").write_text(yaml.safe_dump(chosen, sort_keys=False))
    set_params(
        clone,
        data={"root": "small_world"},
        extend={"target": TARGET},
        train={"steps": 4},
        ask={"max_images": 15},
        methods=METHODS,
        seeds=[0],
    )
    for stale in ("dvc.lock", "metrics"):
        path = clone / stale
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    run(clone, "git", "init", "-q")
    commit(clone, "a cut-down world")
    run(clone, "dvc", "repro", "-q")
    commit(clone, "its results")
    return clone
