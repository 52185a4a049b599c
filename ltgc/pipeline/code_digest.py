"""What code a stage runs on: every module of the project that it reaches, and a digest of each.

A digest leaves out comments, docstrings, blank lines and trailing white space: explaining a line retrains nothing.
The modules are found from the imports, including those inside functions and those by name (`embedded`). Modules
that cannot change an artifact are left out (WITHOUT_EFFECT). The price: a module counts as a whole, so a change of
one function reruns the stages that use another one of the same file; and reformatting counts as a change.
"""

import ast
import hashlib
import io
import json
import tokenize
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import grimp

from ltgc.pipeline import files
from ltgc.pipeline.settings.sections import Params

PACKAGES = ("stages", "graphs", "ltgc", "embedded")
# What these import is not followed either. A test runs stages without them and compares what is written.
WITHOUT_EFFECT = {
    "stages",  # the message of an interpreter that lacks the packages
    "ltgc.pipeline.stage",  # errors as one line, Ctrl-C
    "ltgc.pipeline.terminal",
    "ltgc.pipeline.timing",
    "ltgc.pipeline.settings.sections",  # the types of the sections that a stage loads are in its digest
}


def stages(root: Path = Path()) -> list[str]:
    """The names of all stages but the one that makes the digests."""
    return sorted(path.stem for path in (root / "stages").glob("[a-z]*.py") if path.stem != "code")


def project(root: Path = Path()) -> grimp.ImportGraph:
    """The imports of all modules of the project."""
    present = [package for package in PACKAGES if (root / package).exists()]  # embedded may be deleted
    return grimp.build_graph(*present, cache_dir=None, exclude_type_checking_imports=True)


def closure(stage: str, graph: grimp.ImportGraph, root: Path = Path()) -> set[str]:
    """The modules whose change can change what the stage writes."""
    reached: set[str] = set()
    waiting = [f"stages.{stage}"]
    while waiting:
        module = waiting.pop()
        if module in reached | WITHOUT_EFFECT or not _file(module, root).read_bytes().strip():
            continue
        reached.add(module)
        waiting += graph.find_modules_directly_imported_by(module)
        waiting += _texts(_file(module, root)) & graph.modules  # imported, or run as a stage, by name
        if module.startswith("stages."):
            waiting += _settings(_file(module, root))
        if package := module.rpartition(".")[0]:
            waiting.append(package)  # is imported before its modules
    return reached


def digests(stage: str, graph: grimp.ImportGraph) -> dict[str, str]:
    """File -> sha256 of every file that the stage's modules are in, or read beside themselves."""
    found: dict[str, str] = {}
    for module in closure(stage, graph):
        found |= _digests(_file(module))
    return dict(sorted(found.items()))


def of_folder(folder: Path) -> str:
    """One digest of all files below `folder`."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix == ".py":
            code = without_comments(path.read_text(encoding="utf-8"))
            found[path.relative_to(folder).as_posix()] = hashlib.sha256(code.encode()).hexdigest()
        elif path.is_file() and path.suffix != ".pyc":
            found[path.relative_to(folder).as_posix()] = files.sha256(path)
    return hashlib.sha256(json.dumps(found).encode()).hexdigest()


@cache
def _digests(file: Path) -> dict[str, str]:
    """Of one module, and of the files beside it if it reads such."""
    source = file.read_text(encoding="utf-8")
    digests = {file.as_posix(): hashlib.sha256(without_comments(source).encode()).hexdigest()}
    if "__file__" in source:
        for path in file.parent.rglob("*"):
            if path.is_file() and path.suffix not in (".py", ".pyc"):
                digests[path.as_posix()] = files.sha256(path)
    return digests


def without_comments(source: str) -> str:
    """Python source without comments, docstrings, blank lines and trailing white space.

    They are cut out of the text: tokens and syntax trees differ between versions of Python.
    """
    lines = source.splitlines(keepends=True)
    for token in reversed(list(_without_effect(source))):
        (first, left), (last, right) = token.start, token.end
        lines[first - 1 : last] = [lines[first - 1][:left] + lines[last - 1][right:]]
    return "\n".join(stripped for line in "".join(lines).splitlines() if (stripped := line.rstrip()))


def _without_effect(source: str) -> Iterator[tokenize.TokenInfo]:
    """Comments, and strings that are statements of their own, as docstrings are; in their order."""
    statement_begins = True
    for token, following in pairwise(tokenize.generate_tokens(io.StringIO(source).readline)):
        alone = statement_begins and following.type in (tokenize.NEWLINE, tokenize.COMMENT)
        if token.type == tokenize.COMMENT or (token.type == tokenize.STRING and alone):
            yield token
        elif token.type not in (tokenize.NL, tokenize.INDENT, tokenize.DEDENT):
            statement_begins = token.type == tokenize.NEWLINE


@cache
def _texts(file: Path) -> frozenset[str]:
    """Every text in a module that could be the name of a module in a package."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    texts = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant))
    return frozenset(text for text in texts if isinstance(text, str) and "." in text)


def _settings(stage: Path) -> set[str]:
    """The modules with the types and defaults of the sections of params.yaml that the stage loads."""
    tree = ast.parse(stage.read_text(encoding="utf-8"))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    keys = [
        ast.literal_eval(key) for call in calls if ast.unparse(call.func) == "params.load" for key in call.args
    ]
    sections = {key.partition(".")[0] for key in keys}
    return {module for section in sections for module in _modules(Params.model_fields[section].annotation)}


def _modules(annotation: Any) -> set[str]:
    """The modules of the project that the type, or an argument of it, comes from."""
    modules = {module for argument in get_args(annotation) for module in _modules(argument)}
    if getattr(annotation, "__module__", "").startswith("ltgc."):
        modules.add(annotation.__module__)
    return modules


def _file(module: str, root: Path = Path()) -> Path:
    path = root.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
