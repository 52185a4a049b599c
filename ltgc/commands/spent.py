"""What this project has spent, by experiment, stage and model, as the ledger of the user's pool has it.

ltgc spent
"""

from rich import box
from rich.markup import escape
from rich.table import Table

from ltgc.clients import budget, ledger, pool, project
from ltgc.clients.database import FILE, Database
from ltgc.pipeline.terminal import output


def main() -> None:
    prices, folder = budget.load(), pool.user_folder()
    lines: list[ledger.Spent] = []
    if (folder / FILE).exists():
        database = Database(folder, pool.CACHE)
        lines = database.write_now(lambda db: ledger.spent(db, project.name(prices.caps), prices))
        database.close()
    table = Table(title=f"Spent by this project, as {folder / FILE} has it", box=box.SIMPLE_HEAD, padding=0)
    for heading in ("experiment", "stage", "model"):
        table.add_column(heading, overflow="fold")
    for heading in ("calls", "useless", "prompt tok.", "reply tok.", "images", "USD"):
        table.add_column(heading, justify="right", no_wrap=True)
    for line in lines:
        names = (line.experiment, line.stage, f"{line.model} (in flight or lost)" if line.open else line.model)
        table.add_row(*map(escape, names), *numbers([line]))
    table.add_section()
    table.add_row("total", "", "", *numbers(lines))
    cap = prices.caps.max_usd
    table.caption = "embedded costs nothing and is not counted" + ("" if cap is None else f"; cap ${cap:,.2f}")
    output().print(table)


def numbers(lines: list[ledger.Spent]) -> list[str]:
    counts = [sum(getattr(line, name) for line in lines) for name in ledger.Spent._fields[4:9]]
    unknown = any(line.usd is None for line in lines)
    usd = sum(line.usd or 0.0 for line in lines)
    return [f"{count:,.0f}" for count in counts] + [f"{usd:,.4f}" + (" + no price" if unknown else "")]
