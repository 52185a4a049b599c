"""docs/params.md: every key of params.yaml, from the schema (ltgc/pipeline/params.py) and the file's comments.

python -m tools.params_page        # writes the page; a test compares it with schema and file
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from ltgc.pipeline import files
from ltgc.pipeline.params import PARAMS, Params
from ltgc.pipeline.settings.servers import SERVED

PAGE = Path("docs/params.md")
HEAD = r"""# Every key of params.yaml

Made by `python -m tools.params_page` from the schema in `ltgc/pipeline` and the comments in `params.yaml`; do not
edit it. An unknown key or a wrong value is an error that names the key.

```sh
dvc exp run -S train.lr=0.001 -S 'seeds=[0,1]'             # for one run; `dvc repro` for what you edit in the file
dvc exp run -S data.images=null                            # null is an empty value in the file
dvc exp run -S +vision.timeout=300                         # llm, vision and t2i may differ from servers in any key
dvc exp run -S '++prices={gpt-4.1: {input: 2, output: 8}}' # a model more; write a colon in its name as \:
```

A stage that reads a section runs again when a key of it changes.
"""
INDENT = 2  # of a level in params.yaml
FREE = {"prices", "own"}  # mappings by keys that the user or a method chooses


def page(params: Path = PARAMS, pipeline: Path = Path("dvc.yaml")) -> str:
    """The page as Markdown. Raises KeyError naming a key of params.yaml without a comment."""
    text = params.read_text(encoding="utf-8")
    comments, schema = dict(_comments(text)), Params.model_json_schema()
    stages = yaml.safe_load(pipeline.read_text(encoding="utf-8"))["stages"]
    parts = [HEAD]
    for section, value in yaml.safe_load(text).items():
        leaves = list(_leaves({section: value}))
        title = comments.get(section) if section not in dict(leaves) else None
        parts.append(f"\n## {section}\n\n{_about(section, title, stages)}\n")
        parts.append("| key | default | values | effect |\n|---|---|---|---|")
        for key, default in leaves:
            if not (comment := comments.get(key)):
                raise KeyError(f"{params}: {key} has no comment")
            kind = _kind(schema, key.split("."))
            if all(choice.strip(" `") in comment for choice in kind.split("·")):
                kind = ""  # the comment lists them
            cells = (f"`{key}`", _shown(default), kind, comment.replace(" | ", " · "))
            parts.append("| " + " | ".join(cells) + " |")
    return "\n".join(parts) + "\n"


def _comments(text: str) -> Iterator[tuple[str, str]]:
    """(dotted key, its comment): at the end of its line, or above a key at the beginning of a line."""
    above: list[str] = []
    block: list[str] = []
    for line in text.splitlines():
        if line.startswith("#"):
            block.append(line.removeprefix("#").strip())
            continue
        match = re.match(r"( *)([\w.-]+):(?:.*?\s# (.*))?", line)
        if match:
            indent, key, comment = match.groups()
            above = [*above[: len(indent) // INDENT], key]
            comment = comment or (" ".join(block) if not indent else "")
            if comment:
                yield ".".join(above), comment
        block = []


def _leaves(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of each key that holds no further keys. Those in FREE are one each."""
    for key, value in values.items():
        if isinstance(value, dict) and value and key not in FREE:
            yield from _leaves(value, f"{above}{key}.")
        else:
            yield above + key, value


def _about(section: str, comment: str | None, stages: Mapping[str, Any]) -> str:
    """What a section is for, and who reads which of its keys."""
    readers = []
    for name, stage in stages.items():
        keys = [key for key in stage.get("params", []) if isinstance(key, str)]
        own = [key.partition(".")[2] for key in keys if key.partition(".")[0] == section]
        if f"${{{section}}}" in str(stage.get("matrix", "")):
            own.append("")
        if own:
            readers.append(name if "" in own else f"{name} ({', '.join(own)})")
    completed = " Keys of `servers` may stand here too." if section in SERVED else ""
    purpose = f"{comment[0].upper()}{comment[1:]}.{completed} " if comment else ""
    return f"{purpose}Read by: {', '.join(readers) or 'no stage'}."


def _kind(schema: dict[str, Any], key: list[str]) -> str:
    """What the key may hold, in words."""
    node: dict[str, Any] = schema
    for part in key:
        node = _resolved(schema, node)["properties"][part]
    return _words(schema, node)


def _resolved(schema: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    for alternative in node.get("anyOf", [node]):
        if reference := alternative.get("$ref"):
            return schema["$defs"][reference.rpartition("/")[2]]
    return node


def _words(schema: dict[str, Any], node: dict[str, Any]) -> str:
    if "anyOf" in node:
        return " or ".join(_words(schema, alternative) for alternative in node["anyOf"])
    if "enum" in node:
        return " · ".join(f"`{value}`" for value in node["enum"])
    if "const" in node:
        return f"`{node['const']}`"
    kind = node.get("type", "mapping")
    if kind == "array":
        inner = node.get("items") or (node.get("prefixItems") or [{}])[0]
        return "list of " + _words(schema, inner)
    words = {
        "integer": "integer",
        "number": "number",
        "string": "text",
        "boolean": "true or false",
        "object": "mapping",
    }
    limits = [
        f"{sign} {node[limit]:g}"
        for limit, sign in {
            "minimum": "≥",
            "exclusiveMinimum": ">",
            "maximum": "≤",
            "exclusiveMaximum": "<",
        }.items()
        if limit in node
    ]
    return " ".join([words.get(kind, kind), *limits])


def _shown(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return ", ".join(value) or "{}"
    if isinstance(value, list):
        return f"[{', '.join(map(str, value))}]"
    return str(value)


if __name__ == "__main__":
    files.write_text(PAGE, page())
