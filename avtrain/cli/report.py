"""The command ``avtrain report``."""

from __future__ import annotations

from pathlib import Path

import click

from avtrain.cli.common import one_sentence
from shards.errors import show


@click.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for report.md, report.json and report.png (the figure).",
)
@click.option(
    "--json",
    "numbers",
    type=click.Path(path_type=Path, dir_okay=False),
    help="JSON file with all numbers of the table.",
)
def report(runs: tuple[Path, ...], out: Path | None, numbers: Path | None) -> None:
    """One table of the results of evaluations in the folders RUNS.

    Runs that differ only in the seed are one line, with their mean. The figure shows the first
    metric of each task, and the training curves of the runs that have a log. Damaged files are
    left out and reported, with exit status 1.

    \b
    Example:
      avtrain report runs/* --out report/
    """
    with one_sentence():
        from avtrain.evals.results import read_results
        from avtrain.report.lines import make_lines
        from avtrain.report.page import NOTE, report_table, write_numbers, write_report

        results, left_out = read_results(runs)
        lines = make_lines(results)
        if numbers is not None:
            write_numbers(lines, numbers)
        if out is not None:
            left_out += write_report(lines, runs, out)
        show(*report_table(lines).splitlines())
        show(*NOTE.splitlines(), err=True)
    show(*(f"left out: {sentence}" for sentence in left_out), err=True)
    if left_out:
        click.get_current_context().exit(1)
