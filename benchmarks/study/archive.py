"""A study's results in one file. Its page is made from them, and the same study can continue from
them on another machine. The file holds no networks: those that are needed are trained again."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from avtrain.run_folder import CONFIG, LOG, RESULT_ENDING, read_log
from benchmarks.study.jobs import Job
from benchmarks.study.run import Records
from shards.errors import ShardError
from shards.files import dump_json, write_atomic
from shards.reader import ShardSet

_COLUMNS = ("step", "loss", "clip_accuracy", "view_accuracy")
FACTS, WORLD = "facts.json", "world.md"
"""Files in a study's folder that its pages are made of, beside the results: settings, versions and
dates, and a section on the generated world."""
_RECORDS = "jobs/"
_KEPT = ("job", "settings", "finished", "seconds", "cpu_seconds")
_DATE = (1980, 1, 1, 0, 0, 0)


def write_archive(path: Path, out: Path, jobs: Sequence[Job], records: Records) -> None:
    """Write results, settings and logs of the study's jobs that were done in ``out``, and what its
    pages say beside them. The same results give the same bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name in (FACTS, WORLD):
            if (out / name).exists():
                _add(archive, name, (out / name).read_bytes())
        for job in jobs:
            if job.makes_set or not records.has_results(job):
                continue
            record = records.read(job)
            kept = {name: record[name] for name in _KEPT if name in record}
            _add(archive, _record_name(job), dump_json(kept))
            for file in sorted(job.output.rglob("*")):
                if file.name.endswith((RESULT_ENDING, CONFIG)):
                    text = file.read_text().replace(f"{out}/", "")
                    _add(archive, file.relative_to(out).as_posix(), text.encode())
                elif file.name == LOG:
                    _add(archive, file.relative_to(out).as_posix(), _shorten(file))
    write_atomic(path, buffer.getvalue())


def read_archive(path: Path, out: Path, jobs: Sequence[Job], records: Records) -> tuple[int, int]:
    """Copy from an archive the jobs that have no results in ``out``, and have the same settings and
    sets; the sets must exist. Returns the number of jobs copied, and the number in the archive."""
    copied = 0
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        for job in jobs:
            if _record_name(job) not in names or records.has_results(job):
                continue
            record = json.loads(archive.read(_record_name(job)))
            folder = f"{job.output.relative_to(out).as_posix()}/"
            files = {name: archive.read(name) for name in names if name.startswith(folder)}
            if record["settings"] != records.settings(job) or not _same_sets(files, job, jobs):
                continue
            records.begin(job)
            for name, content in files.items():
                if ".." not in PurePosixPath(name).parts:
                    (out / name).parent.mkdir(parents=True, exist_ok=True)
                    write_atomic(out / name, content)
            records.add_time(job, record["seconds"], True, record.get("cpu_seconds", 0.0))
            copied += 1
    return copied, sum(name.startswith(_RECORDS) for name in names)


def _record_name(job: Job) -> str:
    return f"{_RECORDS}{job.name}.json"


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    archive.writestr(zipfile.ZipInfo(name, _DATE), content, zipfile.ZIP_DEFLATED, 9)


def _shorten(log: Path) -> bytes:
    """The columns of a log that curves show, to four digits."""
    lines: list[dict[str, Any]] = []
    for line in read_log(log).lines:
        kept = {name: line[name] for name in _COLUMNS}
        lines.append({n: float(f"{v:.4g}") if isinstance(v, float) else v for n, v in kept.items()})
    return "".join(f"{json.dumps(line)}\n" for line in lines).encode()


def _same_sets(files: dict[str, bytes], job: Job, jobs: Sequence[Job]) -> bool:
    """Whether results were measured on the sets that exist in the study's folder."""
    roots = [one.output for one in jobs if one.name in job.needs and one.makes_set]
    try:
        known = {ShardSet(root).sha256 for root in roots}
    except ShardError:
        return False
    results = [json.loads(text) for name, text in files.items() if name.endswith(RESULT_ENDING)]
    return bool(files) and all(one["data"] in known for one in results)
