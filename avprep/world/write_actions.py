"""``avprep demo --actions``: write the generated world of actions in the layout of UCF101."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import groupby
from pathlib import Path

import av
from tqdm import tqdm

from avprep.world.actions import (
    ACTIONS,
    FOLDS,
    GROUPS,
    ActionVideo,
    actions_of,
    render_video,
)
from avprep.world.folder import README, World, check_numbers, open_world_folder
from avprep.world.picture import Bytes
from avprep.world.scene import Difficulty
from avprep.world.write import worker_pool
from shards.files import write_atomic

DEFAULT_VIDEOS = {"easy": 360, "hard": 2400}
"""Small networks learn nothing of the hard actions from a few hundred videos."""
_VIDEOS, _LISTS = "UCF-101", "ucfTrainTestlist"


def make_actions(
    out: Path,
    videos: int,
    seed: int,
    workers: int,
    progress: bool = True,
    difficulty: Difficulty = "easy",
) -> None:
    """Write ``videos`` videos and the lists of three folds to ``out``.

    The files depend on the seed and the difficulty only, and a larger world begins with the videos
    of a smaller one. In a folder that a killed call has left, it continues: complete videos are
    kept.
    """
    folders = [_LISTS, *(f"{_VIDEOS}/{action}" for action in actions_of(difficulty))]
    world = World("videos", videos, seed, difficulty)
    # At least three groups of all actions, so that each fold has videos to train and to test on.
    check_numbers(world, FOLDS * len(ACTIONS), workers)
    with open_world_folder(out, world, folders, _headline(world)):
        _write_world(out, world, workers, progress)


def _write_world(out: Path, world: World, workers: int, progress: bool) -> None:
    all_videos = [
        ActionVideo(world.seed, number, world.difficulty) for number in range(world.count)
    ]
    missing = [video for video in all_videos if not (out / _VIDEOS / _file(video)).exists()]
    with tqdm(
        total=world.count,
        initial=world.count - len(missing),
        desc="demo videos",
        unit="video",
        disable=not progress,
    ) as bar:
        for count in _write_groups(out, missing, workers):
            bar.update(count)
    lists = out / _LISTS
    actions = actions_of(world.difficulty)
    numbers = {action: number for number, action in enumerate(actions, start=1)}
    classes = "".join(f"{number} {action}\n" for action, number in numbers.items())
    write_atomic(lists / "classInd.txt", classes.encode())
    for fold in range(1, FOLDS + 1):
        lines: dict[str, list[str]] = {"train": [], "test": []}
        for video in sorted(all_videos, key=lambda video: video.name):
            label = f" {numbers[video.action]}" if video.role(fold) == "train" else ""
            lines[video.role(fold)].append(f"{_file(video)}{label}\n")
        for role, text in lines.items():
            write_atomic(lists / f"{role}list{fold:02d}.txt", "".join(text).encode())
    write_atomic(out / README, _readme(world).encode())


def _write_groups(out: Path, videos: list[ActionVideo], workers: int) -> Iterator[int]:
    """Write the videos; yields the number of videos of each finished group.

    A group's videos are written one after another, so that its panorama is rendered once.
    """
    by_group = sorted(videos, key=lambda video: video.group)
    groups = [list(group) for _, group in groupby(by_group, lambda video: video.group)]
    job = partial(_write_group, out)
    if workers == 1:
        yield from map(job, groups)
        return
    with worker_pool(workers) as pool:
        yield from pool.map(job, groups)


def _write_group(out: Path, videos: list[ActionVideo]) -> int:
    for video in videos:
        rate, images = render_video(video)
        write_avi(out / _VIDEOS / _file(video), images, rate)
    return len(videos)


def _file(video: ActionVideo) -> str:
    return f"{video.action}/{video.name}.avi"


def write_avi(path: Path, images: Iterator[Bytes], rate: int) -> None:
    """Encode I420 frames (height * 3 / 2, width) as MPEG-4 in AVI, as UCF101's, without audio."""
    part = path.with_name(f".{path.name}.part")
    with av.open(str(part), "w", format="avi", options={"fflags": "bitexact"}) as container:
        options = {"flags": "qscale+bitexact", "global_quality": str(4 * 118), "threads": "1"}
        stream = container.add_stream("mpeg4", rate=rate, options=options)
        stream.pix_fmt = "yuv420p"
        for number, image in enumerate(images):
            if number == 0:
                stream.height, stream.width = image.shape[0] * 2 // 3, image.shape[1]
            frame = av.VideoFrame.from_ndarray(image, format="yuv420p")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    part.replace(path)


def _headline(world: World) -> str:
    """The beginning of the README, which identifies the world."""
    hard = "" if world.difficulty == "easy" else f", difficulty {world.difficulty}"
    return f"""# A generated world of actions

{world.count} videos of 2 to 4 s, seed {world.seed}{hard}, in the layout of UCF101:
"""


def _readme(world: World) -> str:
    actions = "\n".join(f"- {action}" for action in actions_of(world.difficulty))
    idle = ", and in four of ten a second object that does nothing" * (world.difficulty == "easy")
    return f"""{_headline(world)}\
`{_VIDEOS}/CLASS/v_CLASS_g01_c01.avi` and the lists of {FOLDS} folds in `{_LISTS}/`. In each, an
object does one of these:

{actions}

The action is the class, and nothing else reveals it: videos whose names differ only in the class
show the same object in front of the same background, with the same camera shake, frame rate and
frame size{idle}. The videos of a group (`g01` to
`g{GROUPS}`) share a place, and no fold trains and tests on the same group. \
{_NOTES[world.difficulty]}
"""


_NOTES = {
    "easy": """Left and right, and the
sense of rotation, distinguish classes: do not mirror these videos to augment them.""",
    "hard": """Single frames
are distributed alike in all classes: only their order and speed tell the action. A mirror image
shows the same action.""",
}
