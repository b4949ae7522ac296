"""HDR recordings become the image that an ordinary display would show."""

from __future__ import annotations

import io
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from avprep.media.tone_map import ToneMap, pq_of_nits
from shards.reader import ShardSet
from tests.support.media import build, noise, write_wav

BT2020_NC, BT709 = 9, 1
TRANSFER = {"pq": 16, "hlg": 18}
HEIGHT, WIDTH = 80, 160


def write(path: Path, codec: str, transfer: str, levels: tuple[float, float, float]) -> None:
    """Two seconds of 10-bit video in one colour; ``levels`` are the signals 0 to 1 of R, G, B."""
    red, green, blue = levels
    y = 0.2627 * red + 0.6780 * green + 0.0593 * blue
    planes = (64 + 876 * y, 512 + 896 * (blue - y) / 1.8814, 512 + 896 * (red - y) / 1.4746)
    luma = np.full((HEIGHT, WIDTH), round(planes[0]), dtype=np.uint16)
    u, v = (np.full((HEIGHT // 4, WIDTH), round(level), dtype=np.uint16) for level in planes[1:])
    with av.open(str(path), "w") as container:
        options = {"x265-params": "log-level=none"} if codec == "libx265" else {}
        stream = container.add_stream(codec, rate=16, options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p10le"
        context = stream.codec_context
        context.color_trc, context.color_primaries = TRANSFER[transfer], BT2020_NC
        context.colorspace, context.color_range = BT2020_NC, 1
        for number in range(32):
            planes_10 = np.concatenate([luma, u, v])
            frame = av.VideoFrame.from_ndarray(planes_10, format="yuv420p10le")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    write_wav(path.with_suffix(".wav"), np.tile(noise(2.0), (4, 1)).astype(np.float32))


def built(raw: Path) -> ShardSet:
    options = ["--clip-duration", 2, "--views", 1, "--size", 32, "--workers", 1]
    known = ["--projection", "equirect", "--stereo", "mono", "--foa-convention", "ambix"]
    result = build(raw, "--out", raw.parent / "set", *options, *known)
    assert result.exit_code == 0, result.output
    return ShardSet(raw.parent / "set")


def pq(nits: float) -> float:
    return float(pq_of_nits(np.array(nits)))


def test_white_stays_white_and_crops_are_tagged_as_bt709(tmp_path: Path) -> None:
    """Signal levels of BT.2408: diffuse white at PQ 58 % or HLG 75 % is 203 nits."""
    raw = tmp_path / "raw"
    raw.mkdir()
    sources = {
        "pq-white": ("libx265", "pq", (pq(203),) * 3),
        "pq-grey": ("libx264", "pq", (pq(40),) * 3),
        "hlg-white": ("libx265", "hlg", (0.75,) * 3),
        "pq-red": ("libx265", "pq", (pq(100), pq(12.6), pq(3.0))),
    }
    for name, (codec, transfer, levels) in sources.items():
        write(raw / f"{name}.mkv", codec, transfer, levels)
    shards = built(raw)
    colour = {}
    for sample, source in enumerate(shards.sources):
        colour[source] = shards.frames(sample, 0, 8, 1)[0].mean(axis=(0, 1))
        with av.open(io.BytesIO(shards.member(sample, "view00.mp4"))) as crop:
            context = crop.streams.video[0].codec_context
            assert context.pix_fmt == "yuv420p"
            tags = (context.colorspace, context.color_trc, context.color_primaries)
            assert tags == (BT709, BT709, BT709)
    for white in ("pq-white", "hlg-white"):
        assert colour[white] == pytest.approx([230, 230, 230], abs=6)
    # 40 of 203 nits on a display with gamma 2.4: 51 %.
    assert colour["pq-grey"] == pytest.approx([130, 130, 130], abs=6)
    # Pure BT.709 red stays pure red.
    red, green, blue = colour["pq-red"]
    assert red > 180
    assert max(green, blue) < 60


def test_the_curve_is_monotone_and_keeps_dark_tones(tmp_path: Path) -> None:
    levels = np.arange(64, 941, dtype=np.uint16)
    tone_map = {"pq": ToneMap("pq"), "hlg": ToneMap("hlg")}
    for name, mapped in tone_map.items():
        luma = [int(mapped(grey(level))[0, 0, 0]) for level in levels[::8]]
        assert np.all(np.diff(luma) >= 0), name
        assert luma[0] == 16
        assert int(mapped(grey(np.uint16(940)))[0, 0, 0]) == 235
        assert np.all(mapped(grey(np.uint16(500)))[:, 32:] == 128)
    for nits in (1.0, 10.0, 60.0):
        level = np.uint16(round(64 + 876 * pq(nits)))
        shown = (int(tone_map["pq"](grey(level))[0, 0, 0]) - 16) / 219
        assert 203 * shown**2.4 == pytest.approx(nits, rel=0.1, abs=0.1)


def grey(level: np.uint16) -> NDArray[np.uint16]:
    crop = np.full((1, 48, 32), 512, dtype=np.uint16)
    crop[:, :32] = level
    return crop
