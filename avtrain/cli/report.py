"""The command ``avtrain report``."""

from __future__ import annotations

from pathlib import Path

import click

from avtrain.cli.common import one_sentence


@click.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for report.md, report.json and report.png, the figures.",
)
@click.option(
    "--json",
    "numbers",
    type=click.Path(path_type=Path, dir_okay=False),
    help="JSON file with all numbers of the table.",
)
def report(runs: tuple[Path, ...], out: Path | None, numbers: Path | None) -> None:
    """The results of evaluations in the folders RUNS, in one table.

    Runs that differ in the seed alone are one line, with their mean. Figures show every task's
    first metric, and the training of the runs that have a log.

    \b
    Example:
      avtrain report runs/* --out report/
    """
    with one_sentence():
        from avtrain.evals.results import read_results
        from avtrain.report.lines import lines_of
        from avtrain.report.page import NOTE, as_markdown, write_numbers, write_report

        lines = lines_of(read_results(runs))
        if numbers is not None:
            write_numbers(lines, numbers)
        if out is not None:
            write_report(lines, runs, out)
        click.echo(as_markdown(lines))
        click.echo(NOTE, err=True)
