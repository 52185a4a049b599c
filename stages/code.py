"""Stage code: a digest of the code that each stage runs on; a stage whose digest changed runs again.

python -m stages.code
"""

from ltgc.pipeline import code_digest, files, stage
from ltgc.pipeline.artifacts.code import CODE


def main() -> None:
    graph = code_digest.project()
    for name in code_digest.stages():
        digests = code_digest.digests(name, graph)
        files.write_text(CODE / f"{name}.txt", "".join(f"{digest}  {path}\n" for path, digest in digests.items()))


if __name__ == "__main__":
    stage.run(main)
