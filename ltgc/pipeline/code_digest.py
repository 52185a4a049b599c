"""What code a stage runs on: every module of the project that it reaches, and a digest of each.

A digest leaves out comments, docstrings, blank lines and trailing white space: explaining a line retrains nothing.
The modules are found from the imports, those inside functions and the late ones by name included. Left out is
what cannot change an artifact (WITHOUT_EFFECT). What it costs: a module counts as a whole, so a change of one
function reruns the stages that use another of the same file; and reformatting counts as a change.
"""

import ast
import hashlib
import io
import json
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, get_args

import grimp

from ltgc.pipeline import files
from ltgc.pipeline.params import Params

PACKAGES = ("stages", "graphs", "ltgc", "embedded")
# These print, time, or check params.yaml, whose values DVC itself compares: not followed further either.
WITHOUT_EFFECT = {
    "stages",
    "ltgc.pipeline.params",
    "ltgc.pipeline.stage",
    "ltgc.pipeline.terminal",
    "ltgc.clients.tally",
}


def stages(root: Path = Path()) -> list[str]:
    """The names of all stages but the one that makes the digests."""
    return sorted(path.stem for path in (root / "stages").glob("[a-z]*.py") if path.stem != "code")


def project(root: Path = Path()) -> grimp.ImportGraph:
    """The imports of all modules of the project."""
    there = [package for package in PACKAGES if (root / package / "__init__.py").exists()]  # embedded may be gone
    return grimp.build_graph(*there, cache_dir=None, exclude_type_checking_imports=True)


def closure(stage: str, graph: grimp.ImportGraph, root: Path = Path()) -> set[str]:
    """The modules whose change can change what the stage writes."""
    reached: set[str] = set()
    waiting = [f"stages.{stage}"]
    while waiting:
        module = waiting.pop()
        if module in reached or module in WITHOUT_EFFECT or not _file(module, root).read_bytes().strip():
            continue
        reached.add(module)
        waiting += graph.find_modules_directly_imported_by(module)
        waiting += sorted(_texts(_file(module, root)) & graph.modules)  # imported by name at run time
        waiting += [module.rpartition(".")[0]] if "." in module else []  # a package is imported before its modules
        if module == f"stages.{stage}":
            waiting += _settings(_file(module, root))
    return reached


def digests(stage: str, graph: grimp.ImportGraph) -> dict[str, str]:
    """File -> sha256 of every file that the stage's modules are in or read beside themselves."""
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
    found = {file.as_posix(): hashlib.sha256(without_comments(source).encode()).hexdigest()}
    if "__file__" in source:
        for path in file.parent.rglob("*"):
            if path.is_file() and path.suffix not in (".py", ".pyc"):
                found[path.as_posix()] = files.sha256(path)
    return found


def without_comments(source: str) -> str:
    """Python source without comments, docstrings, blank lines and trailing white space.

    Cut out of the text, and not printed from the syntax tree, which differs between versions of Python.
    """
    lines = source.splitlines(keepends=True)
    for start, end in sorted([*_comments(source), *_docstrings(source)], reverse=True):
        (first, left), (last, right) = start, end
        lines[first - 1 : last] = [lines[first - 1][:left] + lines[last - 1][right:]]
    return "\n".join(stripped for line in "".join(lines).splitlines() if (stripped := line.rstrip()))


Span = tuple[tuple[int, int], tuple[int, int]]  # (line from 1, column) where it starts and ends


def _comments(source: str) -> Iterator[Span]:
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start, token.end


def _docstrings(source: str) -> Iterator[Span]:
    lines = source.splitlines()

    def column(line: int, offset: int) -> int:
        return len(lines[line - 1].encode()[:offset].decode())  # ast counts bytes

    for node in ast.walk(ast.parse(source)):
        body = getattr(node, "body", None)
        if not isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) or not body:
            continue
        first = body[0]
        if (
            isinstance(first, ast.Expr)
            and isinstance(first.value, ast.Constant)
            and type(first.value.value) is str
        ):
            last, end = first.end_lineno or first.lineno, first.end_col_offset or 0
            yield (first.lineno, column(first.lineno, first.col_offset)), (last, column(last, end))


@cache
def _texts(file: Path) -> frozenset[str]:
    """Every text in a module that could be the name of a module in a package."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    texts = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant))
    return frozenset(text for text in texts if isinstance(text, str) and "." in text)


def _settings(stage: Path) -> set[str]:
    """The modules that hold the types and defaults of the sections of params.yaml that the stage loads."""
    tree = ast.parse(stage.read_text(encoding="utf-8"))
    sections = {
        argument.value.partition(".")[0]
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "params.load"
        for argument in call.args
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str)
    }
    return {module for section in sections for module in _modules(Params.model_fields[section].annotation)}


def _modules(kind: Any) -> set[str]:
    """The modules of the project that the type, or a part of it, comes from."""
    parts = {module for part in get_args(kind) for module in _modules(part)}
    return parts | ({kind.__module__} if getattr(kind, "__module__", "").startswith("ltgc.") else set())


def _file(module: str, root: Path = Path()) -> Path:
    path = root.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
