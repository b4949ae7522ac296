"""The page of ``avprep view`` in a browser: what it shows and what it lets hear."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass, field, replace
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from click.testing import CliRunner

from avprep.cli.main import main
from avprep.sphere.crop import view_directions
from avprep.view.content import Content, Origin, describe_sample
from avprep.view.server import PageServer
from shards.geometry import angle_between_deg, direction_deg, encode_foa, unit_vector
from shards.reader import ShardSet
from shards.schema import View
from tests.avprep.view.chromium import open_browser
from tests.support.media import dot_plane, gnomonic, grey_frame, noise, write_video, write_wav
from tests.support.tiny_set import make_set

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

AZIMUTH, ELEVATION = 60.0, 20.0
"""Where the recording has its dot, and its sound."""

POWERS = """async () => {
  const stored = await loadAudio(DATA.field.file);
  const [length, sampleRate] = [12000, stored.sampleRate];
  const part = new AudioBuffer({ numberOfChannels: 4, length, sampleRate });
  for (let i = 0; i < 4; i++) part.copyToChannel(stored.getChannelData(i).slice(0, length), i);
  const heard = await renderBinaural(part, headMatrix());
  return [0, 1].map((ear) => heard.getChannelData(ear).reduce((sum, x) => sum + x * x, 0));
}"""
"""The power in the left and in the right ear, through the graph and the matrix of the page."""


IMPULSE = """async () => {
  const buffer = new AudioBuffer({ numberOfChannels: 4, length: 16384, sampleRate: 48000 });
  buffer.getChannelData(3)[0] = 1;
  return [...(await weighted(buffer)).getChannelData(3)];
}"""
"""The response of the energy's weighting, to be taken at 100, 315, 1000 and 3150 Hz."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as opened:
        yield opened


@dataclass
class Seen:
    """What a page asked for, beside data and blobs, and what went wrong in it."""

    requests: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


@contextmanager
def opened(browser: Browser, address: str, seen: Seen | None = None) -> Iterator[Page]:
    """A page that has loaded; fails if a script of it fails or breaks its policy."""
    seen = seen or Seen()
    requests, faults = seen.requests, seen.faults
    context = browser.new_context(viewport={"width": 900, "height": 300})
    context.set_default_timeout(20_000)
    page = context.new_page()
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda one: faults.append(one.text) if one.type == "error" else None)
    page.on("request", lambda one: requests.append(one.url) if is_far(one.url) else None)
    page.goto(address)
    page.evaluate("ready")
    yield page
    assert faults == []
    context.close()


def is_far(address: str) -> bool:
    return not address.startswith(("data:", "blob:"))


@contextmanager
def served(content: Content) -> Iterator[str]:
    server = PageServer(content)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server.address
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def write_recording(folder: Path, azimuth: float = AZIMUTH, fuma: bool = False) -> Path:
    frame = grey_frame(dot_plane(160, 320, azimuth, ELEVATION, 4))
    write_video(folder / "dot.mp4", [frame] * 24)
    w, y, z, x = encode_foa(noise(1.0), unit_vector(azimuth, ELEVATION))
    write_wav(folder / "dot.wav", np.stack([w / 2**0.5, x, y, z] if fuma else [w, y, z, x]))
    return folder / "dot.mp4"


def as_file(folder: Path, path: object, *options: object) -> Path:
    """The page in one file, made by the command."""
    page = folder / "page.html"
    result = CliRunner().invoke(main, ["view", *map(str, [path, *options, "--html", page])])
    assert result.exit_code == 0, result.output
    return page


def content_of(root: Path, sample: int = 0) -> Content:
    return describe_sample(ShardSet(root, "train"), sample, Origin())


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set without panoramas, with events and label maps."""
    root = tmp_path_factory.mktemp("labelled")
    return make_set(root, {"train": 1}, labelled=True, map_times_s=(0.5, 1.5))


def until(page: Page, condition: str) -> None:
    """Wait until an expression is true. Playwright's own waiting needs eval, which the page's
    policy forbids."""
    page.evaluate(
        "new Promise((resolve, reject) => { const begin = performance.now(), ask = () => {"
        f"if ({condition}) resolve(); else if (performance.now() < begin + 20000)"
        " setTimeout(ask, 10); else reject(new Error('it never came true')); }; ask(); })"
    )


def look(page: Page, azimuth: float, elevation: float) -> list[int]:
    """Turn there; returns the colour in the middle of the canvas."""
    return list(
        page.evaluate(
            "([a, e]) => { lookAt(a, e); draw(); return state.sphere.colourAt(0.5, 0.5); }",
            [azimuth, elevation],
        )
    )


def away_deg(found: dict[str, float], azimuth: float, elevation: float) -> float:
    there = unit_vector(found["azimuth"], found["elevation"])
    return float(angle_between_deg(there, unit_vector(azimuth, elevation)))


def camera_view(page: Page) -> View:
    """What the page's camera shows, as a view."""
    azimuth, elevation, across, down = page.evaluate(
        "[camera.azimuth, camera.elevation, ...camera.halfTangents]"
    )
    hfov, vfov = (float(2 * np.degrees(np.arctan(tangent))) for tangent in (across, down))
    return View(azimuth, elevation, hfov, vfov)


def test_a_recording_is_seen_and_heard_where_it_is(browser: Browser, tmp_path: Path) -> None:
    """From one file on the disk, without a request to any host."""
    file = as_file(tmp_path, write_recording(tmp_path))
    seen = Seen()
    with opened(browser, file.as_uri(), seen) as page:
        # The dot is in the middle after turning there, and nowhere that a mistake would put it.
        assert min(look(page, AZIMUTH, ELEVATION)) > 190
        for azimuth, elevation in ((-60, 20), (60, -20), (-60, -20), (0, 0), (30, 70), (48, 20)):
            assert max(look(page, azimuth, elevation)) < 90
        # Off the middle, it stands where the camera's geometry says.
        look(page, 40, 5)
        place = gnomonic(camera_view(page), AZIMUTH, ELEVATION)
        colour_there = "([x, y]) => { draw(); return state.sphere.colourAt(x, y); }"
        assert min(page.evaluate(colour_there, place)) > 190

        # The sound is louder in the left ear of one who looks to the front, and so on.
        look(page, 0, 0)
        left, right = page.evaluate(POWERS)
        assert left > 3 * right
        look(page, 180, 0)
        left, right = page.evaluate(POWERS)
        assert right > 3 * left
        look(page, AZIMUTH, ELEVATION)
        left, right = page.evaluate(POWERS)
        assert 0.8 < left / right < 1.25

        # The energy is greatest in that direction, and drawn if it is asked for.
        assert away_deg(page.evaluate("energyAt(0.5).loudest"), AZIMUTH, ELEVATION) < 1
        beside, silent = look(page, 100, 20), look(page, 180, 20)  # 37° and 109° from it
        page.evaluate("byId('energy').checked = true")
        red, _, blue = look(page, 100, 20)
        assert red > beside[0] + 30
        assert red > blue + 50
        assert look(page, 180, 20) == silent  # there the beam takes up nothing of it
        page.evaluate("byId('energy').checked = false")
        assert look(page, 100, 20) == beside

        # A-weighted (IEC 61672-1, table 3), without which a bass drum outweighs all voices.
        response = np.abs(np.fft.rfft(page.evaluate(IMPULSE)))[[34, 107, 341, 1075]]
        decibels = 20 * np.log10(response / response[2])
        assert np.abs(decibels - [-19.1, -6.6, 0, 1.2]).max() < 0.5

        # One turns to the left with its key, or by dragging the picture to the right.
        look(page, 0, 0)
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("ArrowUp")
        assert page.evaluate("[camera.azimuth, camera.elevation]") == [5, 5]
        page.mouse.move(200, 100)
        page.mouse.down()
        page.mouse.move(260, 100)
        page.mouse.move(300, 70)
        page.mouse.up()
        azimuth, elevation = page.evaluate("[camera.azimuth, camera.elevation]")
        assert 10 < azimuth < 40
        assert -10 < elevation < 5
        page.mouse.wheel(0, -200)
        until(page, "camera.fov < 80")

        # It plays, the picture with the sound, and stops.
        page.keyboard.press(" ")
        with_it = "Math.abs(panorama.currentTime - player.now()) < 0.1"
        until(page, f"player.playing && player.now() > 0.2 && {with_it}")
        page.keyboard.press(" ")
        assert not page.evaluate("player.playing")
        page.evaluate("seek(0.5)")
        until(page, "Math.abs(panorama.currentTime - 0.5) < 0.1 && !panorama.seeking")
    assert seen.requests == [file.as_uri()]


def test_a_file_read_in_the_wrong_convention_is_repaired_by_the_switch(
    browser: Browser, tmp_path: Path
) -> None:
    file = as_file(tmp_path, write_recording(tmp_path, -30, fuma=True), "--foa-convention", "ambix")
    with opened(browser, file.as_uri()) as page:
        titles = [choice["title"] for choice in page.evaluate("DATA.conventions.choices")]
        assert titles[0].startswith("as decided: ambiX")
        away, left_share = {}, {}
        look(page, 0, 0)
        for title in titles:
            page.select_option("#convention", label=title)
            name = title.split()[0]
            away[name] = away_deg(page.evaluate("energyAt(0.5).loudest"), -30, ELEVATION)
            if name in ("as", "FuMa"):
                left, right = page.evaluate(POWERS)
                left_share[name] = left / (left + right)
        assert set(away) == {"as", "FuMa", "N3D", "X", "left"}  # of four channels
        assert away.pop("FuMa") < 1
        assert min(away.values()) > 20
        assert page.evaluate("loudest([[1,0,0,0],[0,0,0,0],[0,0,0,0],[0,0,0,0]])") is None
        omni = "{ covariance: [[1]], loudest: null }"
        assert page.evaluate(f"loudestInWords({omni})") == "sound without a direction"
        # Read as ambiX, X stands where Y is: what is on the right is heard from the left.
        assert left_share["as"] > 0.6
        assert left_share["FuMa"] < 0.4


def test_views_events_and_label_maps_are_where_the_set_says(
    browser: Browser, labelled: Path
) -> None:
    """A set without panoramas, so that the picture is put together from the crops."""
    shards = ShardSet(labelled, "train")
    info = shards.info(0)
    event = (info.events or [])[0]
    with served(content_of(labelled)) as address, opened(browser, address) as page:
        assert "no panorama" in page.inner_text("#notes")
        ball = look(page, event["azimuth_deg"], event["elevation_deg"])
        kind = event["class"]
        assert np.argmax(ball) == kind
        assert min(ball) < 60

        # The outline of each view goes through its corners, and its middle part is free.
        page.evaluate("zoom(130 / camera.fov)")
        for view in info.views[:2]:
            look(page, view.azimuth_deg + 5, view.elevation_deg - 1)
            camera = camera_view(page)
            for x, y in ((0, 0), (1, 0), (0.5, 1)):
                place = gnomonic(camera, *direction_in(view, x, y))
                assert 0.005 < min(place) < max(place) < 0.995
                assert page.evaluate(DRAWN_NEAR, place), (view, x, y)
            assert not page.evaluate(DRAWN_NEAR, gnomonic(camera, *direction_in(view, 0.8, 0.7)))
        for view in (View(30, 20, 70, 40), View(-140, -35, 30, 100)):
            shown = dict(zip(("azimuth", "elevation", "hfov", "vfov"), astuple(view), strict=True))
            ray = page.evaluate("view => viewRay(view, 0.1, 0.8)", shown)
            assert away_deg(page.evaluate("directionOf", ray), *direction_in(view, 0.1, 0.8)) < 1e-6
            inside = [
                page.evaluate("([view, v]) => isInView(view, v)", [shown, ray_of(view, x, y)])
                for x, y in ((0.01, 0.99), (0.99, 0.01), (-0.01, 0.5), (0.5, 1.01))
            ]
            assert inside == [True, True, False, False]
        page.evaluate("zoom(90 / camera.fov)")

        # The event is listed, and a click looks there.
        button = page.get_by_role("button", name=f"class {kind}, source 0")
        look(page, -170, 60)
        button.click()
        found = page.evaluate("({ azimuth: camera.azimuth, elevation: camera.elevation })")
        assert away_deg(found, event["azimuth_deg"], event["elevation_deg"]) < 0.01

        # A click into a view opens it: its crop, its label map, and its sound.
        view = info.views[1]
        look(page, view.azimuth_deg, view.elevation_deg)
        box = page.locator("#marks").bounding_box()
        assert box is not None
        page.mouse.click(box["x"] + box["width"] * 0.52, box["y"] + box["height"] * 0.52)
        until(page, "viewPanel.video.readyState >= 2 && player.buffer !== null")
        assert page.inner_text("#view-name") == "View 1"
        assert page.evaluate("currentAudio().audio.file") == "view01.flac"
        # The stored sound has the view's direction in front already.
        assert np.allclose(page.evaluate("headMatrix()"), np.eye(4), atol=1e-9)
        page.evaluate("seek(1.6)")
        page.evaluate("openView(0)")
        until(page, "viewPanel.maps.length === 2 && state.open === 0")
        page.evaluate("draw()")
        assert page.locator("#legend li").all_inner_texts() == ["class 0", f"class {kind + 1}"]
        shown = page.evaluate(
            "viewPanel.canvas.getContext('2d').getImageData(0, 0, 48, 48).data.filter("
            "(_, i) => i % 4 === 3)"
        )
        opaque = np.array(list(shown.values()) if isinstance(shown, dict) else shown) > 0
        expected = shards.label_map(0, 0, 1) > 0
        assert np.array_equal(opaque.reshape(48, 48), expected)


DRAWN_NEAR = """([x, y]) => {
  draw();
  const column = Math.round(x * overlay.canvas.width), row = Math.round(y * overlay.canvas.height);
  const data = overlay.pen.getImageData(column - 2, row - 2, 5, 5).data;
  return data.some((value, i) => i % 4 === 3 && value > 200);
}"""
"""Whether something is drawn within two pixels of a place."""


def ray_of(view: View, x: float, y: float) -> list[float]:
    """What a view shows at a place."""
    return [float(one) for one in view_directions(view, np.array(x), np.array(y))]


def direction_in(view: View, x: float, y: float) -> tuple[float, float]:
    azimuth, elevation = map(float, direction_deg(ray_of(view, x, y)))
    return azimuth, elevation


HOSTILE = "</script><img src=x onerror=ran=1><script>ran=1</script><!--<script>@@STYLE@@"


def test_names_are_text_and_nothing_of_another_host_is_loaded(
    browser: Browser, labelled: Path
) -> None:
    content = content_of(labelled)
    record: dict[str, Any] = dict(content.record)
    record["key"] = HOSTILE
    record["facts"] = [(HOSTILE, HOSTILE)]
    record["notes"] = [HOSTILE]
    record["events"] = [
        {**event, "class": HOSTILE, "source": HOSTILE} for event in record["events"]
    ]
    choices = [{**one, "title": HOSTILE} for one in record["conventions"]["choices"]]
    record["conventions"] = {"choices": choices, "note": HOSTILE}
    seen = Seen()
    with (
        served(replace(content, record=record)) as address,
        opened(browser, address, seen) as page,
        socket.create_server(("127.0.0.1", 0)) as stranger,
    ):
        page.evaluate("openView(0)")
        until(page, "viewPanel.video.readyState >= 2")
        assert page.inner_text("h1") == page.inner_text("dd") == HOSTILE
        assert HOSTILE in page.inner_text("#events")
        assert page.evaluate("document.images.length") == 0
        assert page.evaluate("typeof ran") == "undefined"
        assert {one.rpartition("/")[0] + "/" for one in seen.requests} == {address}
        assert seen.faults == []
        # Had it become HTML, the policy would still not let it run or load.
        there = f"http://127.0.0.1:{stranger.getsockname()[1]}/x"
        text = f"<img src={there} onerror=ran=1><a href=javascript:ran=1 id=bad>x</a>"
        page.evaluate("text => document.body.insertAdjacentHTML('beforeend', text)", text)
        page.evaluate("document.getElementById('bad').click()")
        fetched = f"fetch('{there}', {{ signal: AbortSignal.timeout(3000) }})"
        assert page.evaluate(f"{fetched}.then(() => '', (error) => error.name)") == "TypeError"
        assert page.evaluate("typeof ran") == "undefined"
        stranger.setblocking(False)
        with pytest.raises(BlockingIOError):
            stranger.accept()
        seen.faults.clear()  # what the policy refused
