"""The command `ltgc` (also `python -m ltgc`): everything that a person runs besides the stages of the pipeline.

    ltgc doctor
    ltgc estimate
    ltgc export balancemix 0 exported/balancemix

Each command imports what it needs when it runs, so that `ltgc --help` answers at once.
"""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from ltgc.pipeline import stage

app = typer.Typer(
    help="Long-tail recognition with generated content. The pipeline itself runs with `dvc repro`.",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
shards_app = typer.Typer(help="List, extract or preview generated images.")
app.add_typer(shards_app, name="shards")

# Typer does not export it: it is click's, or that of its own copy of click.
UsageError: type[Exception] = typer.BadParameter.__mro__[1]

DrawingRate = Annotated[
    float | None, typer.Option(min=1e-6, help="Drawn images a second of one GPU, instead of bench.json's.")
]
TrainingRate = Annotated[
    float | None, typer.Option(min=1e-6, help="Images a second that one GPU trains on, instead of bench.json's.")
]
Shards = Annotated[list[Path], typer.Argument(help="Tar files, for example generated/accepted/*.tar.")]


@app.command()
def doctor(
    try_models: Annotated[
        bool, typer.Option("--try", help="Also send one small paid request to each model server.")
    ] = False,
) -> None:
    """Check that this machine is ready for params.yaml.

    Without --try this costs nothing. The exit code is 1 if a check fails.
    """
    from ltgc.commands import doctor

    doctor.main(try_models)


@app.command()
def estimate(drawing_rate: DrawingRate = None, training_rate: TrainingRate = None) -> None:
    """Estimate what each stage will ask and cost.

    Calls, images, tokens, USD and GPU-hours. No model is asked. Run `dvc repro prepare` first.
    """
    from ltgc.commands import estimate

    estimate.main(drawing_rate, training_rate)


@app.command()
def bench(
    gpu: Annotated[bool, typer.Option("--gpu", help="On one GPU, in at most 20 minutes.")] = False,
    out: Annotated[Path, typer.Option(help="The JSON file to write; `ltgc estimate` reads bench.json.")] = Path(
        "bench.json"
    ),
) -> None:
    """Measure how fast this machine trains, scores and draws.

    Without --gpu: small, on the CPU, to see that it works.
    """
    from ltgc.commands import bench

    bench.main(gpu, out)


@app.command()
def preview(
    classes: Annotated[int, typer.Option(min=1, help="How many tail classes.")] = 3,
    open_browser: Annotated[bool, typer.Option("--open/--no-open", help="Open the page.")] = True,
) -> None:
    """Run the loops for a few tail classes, and show them.

    With the real models, and paid for; the real run finds the replies in the pool. Run `dvc repro prepare` first.
    """
    from ltgc.commands import preview

    preview.main(classes, open_browser)


@app.command()
def spent() -> None:
    """Print what this project has spent so far.

    By experiment, stage and model, whatever became of the files.
    """
    from ltgc.commands import spent

    spent.main()


@app.command()
def compare() -> None:
    """Print the comparison of the methods.

    If compare.published names a data set, the paper's figures follow.
    """
    from ltgc.evaluation import tables

    tables.print_tables()


@app.command()
def ablations() -> None:
    """Print the table of the ablations.

    `dvc repro ablations/dvc.yaml` makes it.
    """
    from ltgc.evaluation import ablations

    ablations.print_table()


@app.command()
def export(
    method: Annotated[str, typer.Argument(help="A method of params.yaml, for example balancemix.")],
    seed: Annotated[int, typer.Argument(help="The seed of the run.")],
    folder: Annotated[Path, typer.Argument(help="A new folder for the model.")],
) -> None:
    """Write a trained model as open_clip loads it."""
    from ltgc.commands import export

    export.main(method, seed, folder)


@app.command()
def export_drawings(folder: Annotated[Path, typer.Argument(help="A new folder for the data set.")]) -> None:
    """Write the accepted drawings as WebDataset shards.

    With a dataset card.
    """
    from ltgc.commands import export_drawings

    export_drawings.main(folder)


@app.command()
def review(
    port: Annotated[int, typer.Option(help="Of 127.0.0.1; 0: a free one.")] = 0,
    open_browser: Annotated[bool, typer.Option("--open/--no-open", help="Open the browser.")] = True,
) -> None:
    """Accept, reject or reword what the models made.

    The doubtful ones first, in the browser. The verdicts go to review.csv.
    """
    from ltgc.commands import review

    review.main(port, open_browser)


@app.command()
def feedback(
    descriptions: Annotated[int | None, typer.Option(min=1, help="In all; 10 a tail class if not given.")] = None,
    unsteered: Annotated[bool, typer.Option("--unsteered", help="Control: as many, spread evenly.")] = False,
    random_rivals: Annotated[bool, typer.Option("--random-rivals", help="Control: with random rivals.")] = False,
) -> None:
    """Have the model say what to draw next.

    Adds a round to feedback/rivals.jsonl. No model is asked. `dvc repro` then draws more for the classes that
    need it.
    """
    if unsteered and random_rivals:
        raise typer.BadParameter("--unsteered and --random-rivals are two controls: write one of them")
    from ltgc.commands import feedback

    feedback.main(descriptions, "unsteered" if unsteered else "random_rivals" if random_rivals else None)


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(help="A folder that `ltgc export` wrote.")],
    images: Annotated[Path, typer.Argument(help="A folder of images, read with its subfolders.")],
    out: Annotated[Path, typer.Argument(help="The CSV file to write.")],
) -> None:
    """Classify a folder of images with an exported model."""
    from ltgc.commands import predict

    predict.main(model, images, out)


@shards_app.command("list")
def list_shards(shards: Shards) -> None:
    """Print the verdict, score and prompt of each image."""
    from ltgc.commands import shards as command

    command.show(shards)


@shards_app.command("extract")
def extract_shards(
    shards: Shards, folder: Annotated[Path, typer.Option("--to", help="The folder to write to.")]
) -> None:
    """Write the images and their JSON files, one folder for each shard."""
    from ltgc.commands import shards as command

    command.extract(shards, folder)


@shards_app.command("preview")
def preview_shards(
    shards: Shards, sheet: Annotated[Path, typer.Option("--to", help="The PNG file to write.")]
) -> None:
    """Draw a contact sheet with the score below each image."""
    from ltgc.commands import shards as command

    command.preview(shards, sheet)


def main() -> None:
    with stage.one_line_errors():
        try:
            sys.exit(app(sys.argv[1:] or ["--help"], standalone_mode=False))
        except UsageError as error:
            usage: Any = error
            command, said = usage.ctx.command_path, usage.format_message().rstrip(".")
            stage.fail(f"{command}: {said}; see `{command} --help`", 2)


if __name__ == "__main__":
    main()
