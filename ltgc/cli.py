"""The command `ltgc` (also `python -m ltgc`): everything a person runs that is no stage of the pipeline.

    ltgc doctor
    ltgc estimate
    ltgc export balancemix 0 exported/balancemix

Each command imports what it needs when it runs, so that `ltgc --help` answers at once.
"""

from pathlib import Path
from typing import Annotated

import typer

from ltgc.pipeline import stage

app = typer.Typer(
    help="Long-tail recognition with generated content. The pipeline itself runs with `dvc repro`.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
shards_app = typer.Typer(help="Generated images in shards (generated/*/<class>.tar).", no_args_is_help=True)
app.add_typer(shards_app, name="shards")

Shards = Annotated[list[Path], typer.Argument(help="Tar files, for example generated/accepted/*.tar.")]


@app.command()
def doctor() -> None:
    """Check whether this machine is fit for params.yaml. Costs nothing; exit code 1 if a check fails."""
    from ltgc.commands import doctor

    doctor.main()


@app.command()
def estimate() -> None:
    """Estimate calls, images, tokens and money of each stage. Needs `dvc repro prepare`; asks nobody."""
    from ltgc.commands import estimate

    estimate.main()


@app.command()
def spent() -> None:
    """Print what this project has spent, by experiment, stage and model, whatever became of the files."""
    from ltgc.commands import spent

    spent.main()


@app.command()
def compare() -> None:
    """Print the comparison of methods again, and the paper's figures if compare.published names them."""
    from ltgc.evaluation import tables

    tables.print_tables()


@app.command()
def ablations() -> None:
    """Print the table of the ablations again (make it with `dvc repro ablations/dvc.yaml`)."""
    from ltgc.evaluation import ablations

    ablations.print_table()


@app.command()
def export(
    method: Annotated[str, typer.Argument(help="A method of params.yaml, for example balancemix.")],
    seed: Annotated[int, typer.Argument(help="The seed of the run.")],
    folder: Annotated[Path, typer.Argument(help="A new folder for the model.")],
) -> None:
    """Write a trained model to a folder of its own that open_clip loads."""
    from ltgc.commands import export

    export.main(method, seed, folder)


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(help="A folder that `ltgc export` wrote.")],
    images: Annotated[Path, typer.Argument(help="A folder of images; folders below it are read, too.")],
    out: Annotated[Path, typer.Argument(help="The CSV file to write.")],
) -> None:
    """Classify a folder of images with an exported model."""
    from ltgc.commands import predict

    predict.main(model, images, out)


@shards_app.command("list")
def list_shards(shards: Shards) -> None:
    """Print verdict, score and prompt of each image."""
    from ltgc.commands import shards as command

    command.show(shards)


@shards_app.command("extract")
def extract_shards(
    shards: Shards, folder: Annotated[Path, typer.Option("--to", help="Where the folders of the shards go.")]
) -> None:
    """Write the images and their JSON files, one folder a shard."""
    from ltgc.commands import shards as command

    command.extract(shards, folder)


@shards_app.command("preview")
def preview_shards(
    shards: Shards, sheet: Annotated[Path, typer.Option("--to", help="The PNG file to write.")]
) -> None:
    """Draw a contact sheet, the score under each image."""
    from ltgc.commands import shards as command

    command.preview(shards, sheet)


def main() -> None:
    stage.run(lambda *_: app())


if __name__ == "__main__":
    main()
