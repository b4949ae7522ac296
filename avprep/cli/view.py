"""``avprep view``: a page to look around in a recording and listen to it."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from avprep.cli.build_options import BuildShardsOptions
from avprep.cli.build_shards import build_shards
from avprep.cli.choices import FOA_CONVENTIONS, PROJECTIONS, STEREO_MODES, TRACK, Number
from avprep.errors import UserError
from shards.errors import show

if TYPE_CHECKING:  # importing these takes a while, which --help should not
    from avprep.view.content import Content

_FILE = click.Path(path_type=Path, dir_okay=False)
_PANORAMA = "1536x768"
_OF_RECORDINGS = (
    *("start", "duration", "sound", "projection", "stereo", "fisheye_fov", "foa_convention"),
    *("video_track", "audio_track"),
)


# Unknown options are read as keys: YouTube ids may begin with a dash.
@click.command(
    epilog="Example: avprep view walk.mp4",
    context_settings={"ignore_unknown_options": True},
)
@click.argument("path")
@click.argument("key", required=False)
@click.option(
    "--html", type=_FILE, metavar="FILE", help="Write the page to one file instead of serving it."
)
@click.option("--port", type=click.IntRange(1, 65_535), help="Port to serve at.  [default: any]")
@click.option("--no-browser", is_flag=True, help="Only print the address.")
@click.option(
    "--start", type=Number(0, 1_000_000), default=0.0, help="Second at which to begin a recording."
)
@click.option(
    "--duration", type=Number(1, 60), default=10.0, help="Seconds to show of a recording."
)
@click.option("--sound", type=_FILE, help="The file that holds the recording's audio.")
@click.option("--foa-convention", type=FOA_CONVENTIONS, default="auto", help="As in build-shards.")
@click.option("--projection", type=PROJECTIONS, default="auto", help="As in build-shards.")
@click.option("--stereo", type=STEREO_MODES, default="auto", help="As in build-shards.")
@click.option("--fisheye-fov", type=Number(90, 280), default=180.0, help="As in build-shards.")
@click.option("--video-track", type=TRACK, metavar="N", help="As in build-shards.")
@click.option("--audio-track", type=TRACK, metavar="N", help="As in build-shards.")
@click.pass_context
def view(
    ctx: click.Context,
    /,
    path: str,
    key: str | None,
    html: Path | None,
    port: int | None,
    no_browser: bool,
    **recording: Any,
) -> None:
    """Look around in PATH and listen to it, in a page of the browser.

    PATH is a recording, or a shard set, of which clip KEY (by default the first) is shown. The page
    is served on this machine only, until Ctrl-C.
    """
    # Ends as Ctrl-C does: a temporary set is deleted, and the server closed.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    ctx.call_on_close(lambda: signal.signal(signal.SIGTERM, before))
    if html is not None:
        if html.suffix.lower() not in (".html", ".htm"):
            raise UserError(f"--html {html} must end in .html; it would be written over")
        html.parent.mkdir(parents=True, exist_ok=True)
    content = _content(ctx, path, key, recording)
    if html is not None:
        from avprep.view.page import make_single_page
        from shards.files import write_atomic

        page = make_single_page(content)
        write_atomic(html, page)
        show(f"{html}: {content.record['key']}, {len(page) / 1e6:.1f} MB; open it in a browser")
    else:
        _serve(content, port or 0, not no_browser)


def _content(ctx: click.Context, path: str, key: str | None, recording: dict[str, Any]) -> Content:
    """What there is to show. Raises UserError or ShardError."""
    from avprep.view.content import Origin, describe_sample
    from avprep.view.recording import Excerpt, build_one_sample
    from shards.folders import open_folder
    from shards.manifest import find_sample, read_manifest
    from shards.reader import ShardSet

    if Path(path).is_file():
        if key is not None:
            raise UserError(f"{path} is a recording, which has no clip {key!r}; leave it out")
        excerpt = Excerpt(Path(path), recording["sound"], recording["start"], recording["duration"])
        options = _default_options(ctx, recording).build_options()
        with tempfile.TemporaryDirectory(prefix="avprep-view-") as folder:
            origin = build_one_sample(Path(folder), excerpt, options)
            for doubt in origin.notes:
                show(f"check: {doubt}", err=True)
            return describe_sample(ShardSet(folder), 0, origin)
    if "://" not in path and not Path(path).exists():
        raise UserError(f"{path} does not exist; name a recording, or the folder or URL of a set")
    for name in _OF_RECORDINGS:
        if ctx.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT:
            option = name.replace("_", "-")
            raise UserError(f"--{option} is for recordings, and {path} is no file; leave it out")
    root = open_folder(path)
    split, sample = find_sample(root, read_manifest(root), key)
    return describe_sample(ShardSet(root, split), sample, Origin())


def _default_options(ctx: click.Context, recording: dict[str, Any]) -> BuildShardsOptions:
    """The options of build-shards, with those that say how recordings are read."""
    words = ["RAW", "--out", "OUT", "--panorama", _PANORAMA]
    # Click keeps the help option of a command's first context, which is that of its parent.
    defaults = build_shards.make_context("build-shards", words, parent=ctx.parent).params
    del defaults["raw"], defaults["out"]
    own = {name: value for name, value in recording.items() if name in defaults}
    return BuildShardsOptions(**(defaults | own))


def _serve(content: Content, port: int, opens_browser: bool) -> None:
    import webbrowser

    from avprep.view.server import HOST, PageServer

    try:
        server = PageServer(content, port)
    except OSError as error:
        raise UserError(
            f"port {port} cannot be used ({error.strerror}); leave out --port"
        ) from None
    try:
        number = server.server_port
        show(f"{content.record['key']} is shown at {server.address} until Ctrl-C")
        show(
            f"from another machine: ssh -L {number}:{HOST}:{number} THIS-MACHINE, then this address"
        )
        # Where there is no screen, a browser in text mode would take the terminal.
        has_screen = sys.platform == "darwin" or any(
            map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY"))
        )
        if opens_browser and has_screen:
            webbrowser.open(server.address)
        server.serve_forever()
    except KeyboardInterrupt:
        show("ended")
    finally:
        server.server_close()
