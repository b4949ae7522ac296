"""Reports of a run to TensorBoard, Weights & Biases and MLflow: curves, and figures of batches."""

from __future__ import annotations

import os
import re
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from avtrain.config import Config
from avtrain.data.batch import Batch
from avtrain.errors import TrainingError
from avtrain.pretrain.checks import check_own
from avtrain.pretrain.report_figures import draw
from avtrain.pretrain.trainer import Trainer
from avtrain.run_folder import MLFLOW, REPORTED_AS, TENSORBOARD, WANDB
from shards.errors import show
from shards.files import read_regular, write_atomic

PROJECT = "avsa360"
"""Project (W&B) or experiment (MLflow) that runs are in, unless the environment names another."""
_PACKAGES = {"alembic", "mlflow", "sqlalchemy", "tensorboard", "wandb"}
_RUN_ID = re.compile(r"[0-9a-z]{8,40}")
_FLUSH_S = 5.0
Pixels = NDArray[np.uint8]
_ENVIRONMENT = {
    # A training does not wait for minutes for a server that does not answer.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    # Nor does it tell the makers of these packages that it runs.
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "WANDB_ERROR_REPORTING": "false",
}
"""Settings of both services where the environment has none."""


class Writer(Protocol):
    """Where reports go."""

    def add(self, values: Mapping[str, float], step: int) -> None: ...

    def show(self, name: str, pixels: Pixels, step: int) -> None: ...

    def close(self, failed: bool) -> None: ...


class Reports:
    """The reports of a run to all that were asked for. One that fails later ends, and the run goes
    on without it.

    Raises TrainingError for one whose package is not installed, or that cannot begin.
    """

    def __init__(self, names: Sequence[str], out: Path, config: Config, total: int) -> None:
        self._writers: dict[str, Writer] = {}
        for name in names:
            for setting, value in _ENVIRONMENT.items():
                os.environ.setdefault(setting, value)
            try:
                self._writers[name] = WRITERS[name](out, config, total)
            except TrainingError:
                self.close(failed=True)
                raise
            except Exception as error:  # of any kind: it is what another program's settings cause
                self.close(failed=True)
                if isinstance(error, ImportError) and (error.name or "").split(".")[0] in _PACKAGES:
                    raise TrainingError(
                        f"{error.name} is not installed; `pip install 'avsa360[{name}]'` brings "
                        f"what --report-to {name} needs"
                    ) from None
                raise TrainingError(f"{name} cannot begin: {_first_line(error)}") from None

    def add(self, line: Mapping[str, Any]) -> None:
        """Add a line of the log to the curves."""
        values = {
            name: float(value)
            for name, value in line.items()
            if name not in ("step", "epoch") and value is not None
        }
        self._each(lambda writer: writer.add(values, line["step"]))

    def show(self, trainer: Trainer, batch: Batch, step: int) -> None:
        """Add figures of a batch. Changes nothing of the run."""
        figures = draw(trainer, batch) if self._writers else {}
        for name, figure in figures.items():
            pixels = cache(partial(_pixels, figure))  # once for all writers, inside of `_each`
            self._each(partial(_show, name, pixels, step))

    def close(self, failed: bool) -> None:
        self._each(lambda writer: writer.close(failed))
        self._writers = {}

    def _each(self, call: Callable[[Writer], None]) -> None:
        for name, writer in [*self._writers.items()]:
            try:
                call(writer)
            except Exception as error:  # of any kind: hours of training do not end by a report
                first = _first_line(error)
                show(f"check: {name} gets no more reports, and the run goes on: {first}", err=True)
                del self._writers[name]


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _show(name: str, pixels: Callable[[], Pixels], step: int, writer: Writer) -> None:
    writer.show(name, pixels(), step)


class _TensorBoard:
    """Writes to ``OUT/tensorboard``, and hides what an earlier start wrote after step ``total``."""

    def __init__(self, out: Path, _: Config, total: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise ImportError(name="tensorboard") from None

        folder = out / TENSORBOARD
        check_own(folder)
        self._writer: Any = SummaryWriter(str(folder), purge_step=total + 1)

    def add(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def show(self, name: str, pixels: Pixels, step: int) -> None:
        self._writer.add_image(name, pixels, step, dataformats="HWC")

    def close(self, failed: bool) -> None:
        self._writer.close()


class _Wandb:
    """Writes to ``OUT/wandb``, which W&B uploads where it knows a login; WANDB_MODE decides."""

    def __init__(self, out: Path, config: Config, total: int) -> None:
        import wandb

        check_own(out / WANDB)
        identity = _identity(out / WANDB / REPORTED_AS, total, lambda: secrets.token_hex(4))
        # By name: W&B itself reads its environment once per process.
        mode: Any = os.environ.get("WANDB_MODE") or None
        if mode is None and not wandb.login(prompt=False):
            mode = "offline"
            show(
                f"W&B knows no login: it writes to {out / WANDB} alone; `wandb sync` uploads that",
                err=True,
            )
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=os.environ.get("WANDB_NAME", out.resolve().name),
            dir=out,
            id=identity,
            resume="allow",
            config=config.to_dict(),
            mode=mode,
            settings=wandb.Settings(console="off", silent=True),
        )
        # A resumed run reports some steps again, which W&B's own count would refuse.
        self._run.define_metric("*", step_metric="step")
        self._image = wandb.Image

    def add(self, values: Mapping[str, float], step: int) -> None:
        self._run.log({**values, "step": step})

    def show(self, name: str, pixels: Pixels, step: int) -> None:
        self._run.log({name: self._image(pixels), "step": step})

    def close(self, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))


class _Mlflow:
    """Writes to the server that MLFLOW_TRACKING_URI names, or to ``OUT/mlflow``."""

    def __init__(self, out: Path, config: Config, total: int) -> None:
        from mlflow.entities import Metric, Param
        from mlflow.tracking import MlflowClient

        folder = (out / MLFLOW).resolve()
        check_own(out / MLFLOW)
        self._metric, self._pending = Metric, list[Any]()
        self._flushed = time.monotonic()
        uri, artifacts = os.environ.get("MLFLOW_TRACKING_URI"), None
        if not uri:
            if {"?", "%"} & set(str(folder)):
                raise TrainingError(
                    f"MLflow cannot write to {folder}, whose name has ? or %: rename a folder, or "
                    "set MLFLOW_TRACKING_URI"
                )
            folder.mkdir(exist_ok=True)
            uri, artifacts = f"sqlite:///{folder / 'mlflow.db'}", (folder / "artifacts").as_uri()
        self._client = MlflowClient(tracking_uri=uri)
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        found = self._client.get_experiment_by_name(name)
        experiment = (
            self._client.create_experiment(name, artifacts)
            if found is None
            else found.experiment_id
        )
        self._run_id = _identity(
            out / MLFLOW / REPORTED_AS,
            total,
            lambda: str(
                self._client.create_run(experiment, run_name=out.resolve().name).info.run_id
            ),
        )
        # A run that was moved, or is a stranger's, says where its figures go.
        place = self._client.get_run(self._run_id).info.artifact_uri or ""
        if artifacts is not None and not place.startswith(f"{artifacts}/"):
            raise TrainingError(
                f"{folder} was made in another place, where its figures would go; move it away, "
                "and reports begin anew"
            )
        params = [Param(key, str(value)) for key, value in config.flat().items()]
        self._client.update_run(self._run_id, status="RUNNING")
        self._client.log_batch(self._run_id, params=params)

    def add(self, values: Mapping[str, float], step: int) -> None:
        now = time.time_ns() // 1_000_000
        self._pending += [self._metric(name, value, now, step) for name, value in values.items()]
        if time.monotonic() - self._flushed > _FLUSH_S or len(self._pending) > 900:
            self._flush()

    def show(self, name: str, pixels: Pixels, step: int) -> None:
        self._flush()
        self._client.log_image(self._run_id, pixels, f"{name}/step-{step:08d}.png")

    def close(self, failed: bool) -> None:
        self._flush()
        self._client.set_terminated(self._run_id, "FAILED" if failed else "FINISHED")

    def _flush(self) -> None:
        pending, self._pending = self._pending, []
        self._flushed = time.monotonic()
        if pending:
            self._client.log_batch(self._run_id, metrics=pending)


WRITERS: dict[str, Callable[[Path, Config, int], Writer]] = {
    "tensorboard": _TensorBoard,
    "wandb": _Wandb,
    "mlflow": _Mlflow,
}


def _identity(path: Path, total: int, make: Callable[[], str]) -> str:
    """The name by which a service knows the run: that of its earlier start, if it goes on."""
    if total:
        with suppress(OSError):  # damage: the service gets a new run
            found = read_regular(path, 100).decode(errors="replace").strip()
            if _RUN_ID.fullmatch(found):
                return found
    made = make()
    path.parent.mkdir(exist_ok=True)
    write_atomic(path, f"{made}\n".encode())
    return made


def _pixels(figure: Any) -> Pixels:
    """The drawn figure, RGB (height, width, 3)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
