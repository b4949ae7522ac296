"""Where does the sound come from? The view whose picture and sound match best, by the networks' own
similarities.

Nothing is trained. In each of W fixed windows, the video of every view of a clip is compared with
the sound turned to that view, as in pretraining, and the best match is taken for the place of the
sound: its angle to the nearest source that sounds and can be seen. Beside it stand what sound alone
says (the view towards which a cardioid beam is loudest), what pictures alone say (the view that
matches the sounds of all clips best on average), and chance (any view).
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from avtrain.data.clips import Clips
from avtrain.data.plan import Plan
from avtrain.data.unreadable import Unreadable
from avtrain.errors import TrainingError
from avtrain.evals.bootstrap import mean_metric
from avtrain.evals.evaluation import EvaluationOptions, open_evaluation
from avtrain.evals.feature_store import (
    BATCH_SIZE,
    FrozenFeatures,
    WindowOptions,
    embed,
    join,
)
from avtrain.evals.results import Metric, Result
from avtrain.evals.truth import sources_in
from avtrain.networks.models import Embeddings
from shards.errors import ShardError
from shards.geometry import unit_vector

TASK = "locate"
MEAN_ERROR, NEAR, ONE_SOURCE = "mean error", "within 20°", "one source, mean error"
SOUND, PICTURE = "sound alone", "pictures alone"
_NEAR_DEG = 20.0


def evaluate_locate(common: EvaluationOptions, options: WindowOptions) -> Result:
    """Find the views with sounding sources in every test clip, write and return the result."""
    run = open_evaluation(TASK, common, fits=False)
    test, config = run.test, common.config
    views = options.views_to_read(test)
    networks = run.load_networks()
    progress = run.progress(
        networks.described,
        {
            "views": (options.views, views),
            "windows": options.windows,
            "data": (run.train.sha256, common.train_split),
            "test": (test.sha256, common.test_split),
        },
    )
    if (written := progress.finished_result()) is not None:
        return written

    clips = run.test_clips(replace(config.clip, views=views, moments=1), options.windows)
    places = find_places(clips, options, run.unreadable_test)
    plan = Plan(test, common.seed, BATCH_SIZE)
    features = FrozenFeatures(networks, clips, plan, run.workers, run.unreadable_test, options)
    scores: list[Tensor] = []
    if (state := progress.load()) is not None:
        example = torch.zeros(2, len(test), options.views, dtype=torch.float64)
        progress.check(state, {"scores": [example]})
        scores = state["scores"][: options.windows]
    bar = run.bar(len(test) * options.windows, initial=len(test) * len(scores))
    for window in range(len(scores), options.windows):
        parts = []
        with closing(features.batches(window, ("video", "audio"))) as batches:
            for batch in batches:
                parts.append((embed(networks, batch), batch.index))
                bar.update(len(batch.index))
        embeddings, index = join(parts)
        of_all = torch.zeros(2, len(test), options.views, dtype=torch.float64)
        of_all[:, index] = torch.stack([matches(embeddings), matches_of_pictures(embeddings)])
        scores.append(of_all)
        progress.save({"scores": scores})
    bar.close()

    places = [one for one in places if run.unreadable_test.readable(np.array([one.clip]))[0]]
    if not places:
        raise TrainingError(f"no clip of {test.where} shows a source that sounds in its windows")
    by_clip = torch.stack(scores).numpy()
    found = {
        "": [by_clip[one.window, 0, one.clip] for one in places],
        SOUND: [one.energy for one in places],
        PICTURE: [by_clip[one.window, 1, one.clip] for one in places],
    }
    sources = np.array([test.sources[one.clip] for one in places])
    metrics = {
        name: _metrics(np.array(scores_of), places, sources) for name, scores_of in found.items()
    }
    beside = {f"{name}, {MEAN_ERROR}": metrics[name][MEAN_ERROR] for name in (SOUND, PICTURE)}
    nearest = np.array([one.angles_deg.min() for one in places])
    result = run.result(
        networks.described,
        metrics[""] | beside,
        options.views,
        test={"windows": options.windows},
        details={
            "windows_with_a_source": len(places),
            "mean_error_of_the_nearest_view": float(nearest.mean()),
            **{
                name: {key: asdict(metric) for key, metric in metrics[name].items()}
                for name in (SOUND, PICTURE)
            },
        },
        tested=np.unique([one.clip for one in places]),
    )
    return run.finish(progress, result)


def matches(found: Embeddings) -> Tensor:
    """How well the video and the sound of each view match (N, V): the mean of both similarities
    that pretraining compares."""
    video = (found.predicted_audio * found.audio).sum(dim=-1)
    audio = (found.predicted_video * found.video).sum(dim=-1)
    return ((video + audio) / 2).double()


def matches_of_pictures(found: Embeddings) -> Tensor:
    """How well the video of each view matches the sounds of all views of all clips on average
    (N, V): what pictures say without their sound."""
    sounds, predicted = (
        part.flatten(0, 1).mean(dim=0) for part in (found.audio, found.predicted_video)
    )
    return ((found.predicted_audio @ sounds + found.video @ predicted) / 2).double()


@dataclass(frozen=True)
class Place:
    """A window of a clip with a source that sounds and can be seen. Of each view: the angle between
    its centre and the nearest such source, and the energy of the sound towards it."""

    window: int
    clip: int
    sources: int
    angles_deg: NDArray[np.float64]
    energy: NDArray[np.float64]


def find_places(clips: Clips, options: WindowOptions, unreadable: Unreadable) -> list[Place]:
    """The windows of all clips that have a visible sounding source. Unreadable clips are left out.

    Raises TrainingError where no clip says where its sounds come from.
    """
    found, known = [], False
    # Published conventions turn no sound to a view.
    heard = replace(clips.sound, conventions="avsa360")
    turned = Clips(clips.shards, clips.clip, heard, clips.augment, clips.seed, clips.windows)
    for clip in range(len(clips.shards)):
        for window in range(options.windows):
            try:
                draw = clips.draw(window, clip)
                info = clips.shards.info(clip)
                if info.events is None:
                    break
                known = True
                start_s = clips.starts_s(clip, draw)[0]
                sources = sources_in(info, start_s, clips.sound.duration_s)
                seen = np.array([one.direction for one in sources if one.visible])
                if not len(seen):
                    continue
                _, audio, matrices, _ = turned.read_audio(clip, draw)
            except (ShardError, TrainingError) as error:
                unreadable.add([(clip, str(error))])
                break
            looks = [info.views[view] for view in draw.views[: options.views]]
            centres = unit_vector(
                [view.azimuth_deg for view in looks], [view.elevation_deg for view in looks]
            )
            angles = np.degrees(np.arccos(np.clip(centres @ seen.T, -1, 1))).min(axis=1)
            energy = beam_energy(matrices[0, : options.views] @ audio[0])
            found.append(Place(window, clip, len(sources), angles, energy))
    if not known:
        raise TrainingError(
            f"no clip of {clips.shards.where} says where its sounds come from (`events`): build "
            "the set from recordings with labels, such as STARSS"
        )
    return found


def beam_energy(sound: NDArray[np.float32]) -> NDArray[np.float64]:
    """Mean energy (V,) of a cardioid towards the front of ambisonics (V, 4, samples) turned to each
    view; of other sound (V, channels, samples) that of its channels."""
    heard = (sound[:, :1] + sound[:, 3:]) / 2 if sound.shape[1] == 4 else sound
    return np.asarray(np.square(heard, dtype=np.float64).mean(axis=(1, 2)))


def _metrics(
    scores: NDArray[np.float64], places: list[Place], sources: NDArray[np.str_]
) -> dict[str, Metric]:
    """Errors of the best view by ``scores`` (places, V); chance is any view."""
    angles = np.array([one.angles_deg for one in places])
    error = angles[np.arange(len(angles)), scores.argmax(axis=1)]
    any_view = angles.mean(axis=1)
    metrics = {
        MEAN_ERROR: mean_metric(error, sources, float(any_view.mean()), None, "°", "lower"),
        NEAR: mean_metric(error <= _NEAR_DEG, sources, float((angles <= _NEAR_DEG).mean())),
    }
    one = np.array([place.sources == 1 for place in places])
    if one.any():
        chance = float(any_view[one].mean())
        metrics[ONE_SOURCE] = mean_metric(error[one], sources[one], chance, None, "°", "lower")
    return metrics
