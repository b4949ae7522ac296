"""Plans and options are recorded as in sets that exist already."""

from __future__ import annotations

from pathlib import Path

from avprep.build.options import BuildOptions
from avprep.build.plan import plan_build
from avprep.formats.decide import FormatOverrides, VideoFormat
from avprep.formats.decide_audio import AudioFormat
from avprep.recordings.clips import Clip
from avprep.recordings.find_clips import FoundClips
from avprep.sample.options import Cleaning, ClipOptions
from avprep.sphere.projections import Sphere
from avprep.sphere.viewpoints import RandomViews
from shards.files import dump_json

CLIP = Clip(
    *("a-2", "a", "train"),
    *(Path("/raw/a.mp4"), Path("/raw/a.wav"), "a.mp4"),
    *(2.0, 2.0, 4.0),
    VideoFormat(Sphere("eac"), "top-bottom", 90, "by --projection"),
    AudioFormat("fuma", (0, 1, 2, 3), "by --foa-convention"),
    *("label", ("train", "test"), Path("/raw/a.json")),
    *(Path("/raw/maps/a"), 1.0),
)
OPTIONS = BuildOptions(
    ClipOptions(
        RandomViews(2, (30.0, 90.0)), 64, 16, 24000, "source", 0, 60.0, cleaning=Cleaning(-60.0)
    ),
    *(FormatOverrides(), "folder", 4.0, 1000),
)


def test_recorded_options_keep_their_names() -> None:
    """Manifests of existing sets hold these names, and --append compares them."""
    assert dump_json(OPTIONS.record()).decode().rstrip() == (
        '{"clip":{"views":{"count":2,"hfov_deg":[30.0,90.0],"min_separation_deg":36.0,'
        '"by_energy":false},"size":64,"fps":16,"sample_rate":24000,"audio_layout":"source",'
        '"seed":0,"audio":"foa","cleaning":{"level_dbfs":-60.0,"change":null,"spatiality":null}},'
        '"wanted":{"projection":"auto","stereo":"auto","fisheye_fov_deg":180.0,'
        '"foa_convention":"auto"},"layout":"folder","clip_duration_s":4.0,"shard_bytes":1000}'
    )


def test_the_digest_of_a_plan_does_not_change() -> None:
    """Otherwise unfinished builds could not be finished, nor finished sets be recognised."""
    found = FoundClips((CLIP,), (), 0, "folder", ())
    plan = plan_build(found, OPTIONS.record(), 0, 1000, OPTIONS.clip_bytes())
    assert plan.digest == "9102f19fdb4a9246ee2abed868bf4166f4b79a90d8e56f2175e5822246e31878"
