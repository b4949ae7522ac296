"""The options of ``avprep build-shards`` as the command line parses them."""

from __future__ import annotations

from typing import Any, get_args, get_origin, get_type_hints

import pytest

from avprep.cli.build_options import BuildShardsOptions
from avprep.cli.build_shards import build_shards

EVERY_OPTION = (
    "--splits lists --segments segments.txt --views 3 --hfov 30:60 --fps 12.5 --video-track 0 "
    "--audio-track 2 --drop-silent -60 --drop-static 0.5 --drop-mono 0.01 --part 3:4.5 "
    "--panorama 64x32 --workers 2 --shard-size 1GB --append --task-index 0 --task-count 2 "
    "--scheduler tcp://host:1"
)


def parsed(*arguments: str) -> dict[str, Any]:
    """What click gives the command for these options."""
    given = ["raw", "--out", "set", *arguments]
    # Click keeps the help option of a command's first context, so it is that of the group.
    help_options = {"help_option_names": ["-h", "--help"]}
    with build_shards.make_context("build-shards", given, **help_options) as context:
        return {name: context.params[name] for name in context.params.keys() - {"raw", "out"}}


@pytest.mark.parametrize("given", ["", EVERY_OPTION])
def test_the_command_line_gives_the_fields_and_types_of_the_dataclass(given: str) -> None:
    values, types = parsed(*given.split()), get_type_hints(BuildShardsOptions)
    assert values.keys() == types.keys()
    for name, value in values.items():
        kinds = (types[name], *get_args(types[name]))  # a type, or those of a union
        if pairs := [get_args(kind) for kind in kinds if get_origin(kind) is tuple]:
            assert value is None or tuple(type(part) for part in value) in pairs, name
            assert value is not None or type(None) in kinds, name
        else:
            assert isinstance(value, types[name]), name
        assert value is not None or not given, name


@pytest.mark.parametrize(("given", "fps"), [("12.5", 12.5), ("16", 16)])
def test_whole_frame_rates_become_integers(given: str, fps: float) -> None:
    options = BuildShardsOptions(**parsed("--fps", given)).build_options()
    assert options.clip.fps == fps
    assert type(options.clip.fps) is type(fps)
