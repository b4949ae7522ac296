"""``avprep coverage``: compare a folder with a dataset's official list."""

from __future__ import annotations

from pathlib import Path

import click

from avprep.cli.choices import LAYOUTS, WORKERS, cores
from shards.errors import show, show_json

_PATH = click.Path(path_type=Path)


@click.command(epilog="Example: avprep coverage /raw --against train.txt --missing missing.txt")
@click.argument("raw", type=_PATH)
@click.option(
    "--against",
    "lists",
    type=_PATH,
    multiple=True,
    required=True,
    metavar="LIST",
    help="Official list: lines `ID`, `ID_start` or `ID t1,t2,…`, or CSV with a column of ids. May "
    "be given several times.",
)
@click.option("--layout", type=LAYOUTS, default="auto", help="As in build-shards.")
@click.option(
    "--missing",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write the ids of which something is missing, one on each line, for `yt-dlp -a FILE`.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with each file, and why.")
@click.option("--workers", type=WORKERS, help="Processes; by default one per core.")
def coverage(
    raw: Path,
    lists: tuple[Path, ...],
    layout: str,
    missing: Path | None,
    as_json: bool,
    workers: int | None,
) -> None:
    """Show how much of an official list is in RAW: usable, unusable and why, or missing."""
    from avprep.look import coverage as look
    from avprep.look.official_list import read_official_lists

    listed = read_official_lists(lists)
    found = look.measure_coverage(raw, layout, listed, workers or cores())
    if as_json:
        show_json(look.as_json(found))
    else:
        show(*look.as_table(found))
    for sentence in (found.not_read, *found.unreadable):
        if sentence is not None:
            show(sentence, err=True)
    if missing is not None:
        missing.write_text("".join(f"{source}\n" for source in found.missing), "utf-8")
        show(f"{len(found.missing)} ids in {missing}", err=True)
