"""The results of a study in one file: what its page is made of, and what the same study on another
machine goes on from. Networks are not in it: those that it turns out to need are trained again."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from avtrain.pretrain.run_log import read_log
from avtrain.run_folder import CONFIG, LOG, RESULT_ENDING
from benchmarks.study.jobs import Job
from benchmarks.study.run import SETS, Records
from shards.errors import ShardError
from shards.files import dump_json, write_atomic
from shards.reader import ShardSet

_COLUMNS = ("step", "loss", "clip_accuracy", "view_accuracy")
_RECORDS = "jobs/"
_DATE = (1980, 1, 1, 0, 0, 0)


def write_archive(path: Path, out: Path, jobs: Sequence[Job], records: Records) -> None:
    """Results, settings and logs of the finished jobs of a study in ``out``; the same bytes for the
    same results."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for job in jobs:
            if job.kind.endswith(SETS) or not records.is_finished(job):
                continue
            record = {name: records.read(job)[name] for name in ("job", "settings", "seconds")}
            _add(archive, _record(job), dump_json(record))
            for file in sorted(job.makes.rglob("*")):
                if file.name.endswith((RESULT_ENDING, CONFIG)):
                    text = file.read_text().replace(f"{out}/", "")
                    _add(archive, file.relative_to(out).as_posix(), text.encode())
                elif file.name == LOG:
                    _add(archive, file.relative_to(out).as_posix(), _thin(file))
    write_atomic(path, buffer.getvalue())


def take_archive(path: Path, out: Path, jobs: Sequence[Job], records: Records) -> tuple[int, int]:
    """Take from an archive what is not finished in ``out``, of the same settings and sets, which
    are there. Returns of how many jobs, and how many are in the archive."""
    taken = 0
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        for job in jobs:
            if _record(job) not in names or records.is_finished(job):
                continue
            record = json.loads(archive.read(_record(job)))
            place = f"{job.makes.relative_to(out).as_posix()}/"
            files = {name: archive.read(name) for name in names if name.startswith(place)}
            if record["settings"] != records.settings(job) or not _is_of(files, job, jobs):
                continue
            records.begin(job)
            for name, content in files.items():
                if ".." not in PurePosixPath(name).parts:
                    (out / name).parent.mkdir(parents=True, exist_ok=True)
                    write_atomic(out / name, content)
            records.note(job, record["seconds"], finished=True)
            taken += 1
    return taken, sum(name.startswith(_RECORDS) for name in names)


def _record(job: Job) -> str:
    return f"{_RECORDS}{job.name}.json"


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    archive.writestr(zipfile.ZipInfo(name, _DATE), content, zipfile.ZIP_DEFLATED, 9)


def _thin(log: Path) -> bytes:
    """What curves show, to four digits."""
    lines: list[dict[str, Any]] = []
    for line in read_log(log):
        kept = {name: line[name] for name in _COLUMNS}
        lines.append({n: float(f"{v:.4g}") if isinstance(v, float) else v for n, v in kept.items()})
    return "".join(f"{json.dumps(line)}\n" for line in lines).encode()


def _is_of(files: dict[str, bytes], job: Job, jobs: Sequence[Job]) -> bool:
    """Whether results are of the sets that are there."""
    roots = [one.makes for one in jobs if one.name in job.needs and one.kind.endswith(SETS)]
    try:
        known = {ShardSet(root).manifest.sha256 for root in roots}
    except ShardError:
        return False
    results = [json.loads(text) for name, text in files.items() if name.endswith(RESULT_ENDING)]
    return bool(files) and all(one["data"] in known for one in results)
