"""The pipeline's own dvc.yaml in a repository of its own, its commands replaced by ones that only make the outs.

What depends on what is as in the pipeline, and a run takes seconds.
"""

import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import yaml

from helpers.paths import ROOT

CODE = ("stages", "graphs", "ltgc", "embedded")


def out_paths(stage: dict[str, Any]) -> list[str]:
    outs = [out for kind in ("outs", "metrics", "plots") for out in stage.get(kind, [])]
    return [out if isinstance(out, str) else next(iter(out)) for out in outs]


def make_command(path: str) -> str:
    """A shell command that makes an out: a file, or a folder with a file in it."""
    file = path if Path(path.split("${")[0]).suffix else f"{path}/file"
    return f"mkdir -p {Path(file).parent} && echo {file} > {file}"


def build(folder: Path, real: tuple[str, ...] = (), **sections: object) -> None:
    """Make the repository in `folder`; stages named in `real` keep their commands. sections: of params.yaml."""
    pipeline = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))
    for name, stage in pipeline["stages"].items():
        if name not in real:
            stage["cmd"] = " && ".join(map(make_command, out_paths(stage)))
    digests = [f"code/{name}.txt" for name in pipeline["stages"] if name != "code"]
    pipeline["stages"]["code"]["cmd"] = " && ".join(map(make_command, digests))
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    for name, values in sections.items():
        params[name] = params[name] | values if isinstance(values, dict) else values
    folder.mkdir(parents=True, exist_ok=True)
    for package in CODE:
        (folder / package).mkdir()
        (folder / package / "module.py").touch()
    shutil.copytree(ROOT / "prompts", folder / "prompts")
    shutil.copy(ROOT / "review.csv", folder)
    shutil.copytree(ROOT / "feedback", folder / "feedback")
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": pipeline["stages"]}, sort_keys=False))
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    (folder / ".gitignore").write_bytes((ROOT / ".gitignore").read_bytes())
    for command in ("git init -q", "dvc init -q"):
        subprocess.run(shlex.split(command), cwd=folder, check=True)
    (folder / ".dvc/config").write_bytes((ROOT / ".dvc/config").read_bytes())
