"""Small healthy recordings of many kinds, as bytes, for `tests.fuzz` to damage."""

from __future__ import annotations

import json
import struct
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import soundfile
from numpy.typing import NDArray

from avprep.recordings.recording import AUDIO_SUFFIXES, VIDEO_SUFFIXES
from shards.geometry import encode_foa, unit_vector
from tests.avprep.formats.boxes import (
    add_st3d,
    add_sv3d,
    add_v1,
    box,
    cbmp,
    crop_fields,
    equi,
    prhd,
    sa3d,
    vexu,
)
from tests.support.known_truth import run_ffmpeg
from tests.support.media import (
    equirectangular_texture,
    grey_frame,
    insert_box,
    noise,
    write_audio,
    write_video,
    write_wav,
)

_SIZE = (96, 192)
_FPS = 12
_SECONDS = 2
_LARGEST_REAL = 8_000_000


@dataclass(frozen=True)
class Seed:
    """A recording: its files by path, with ``{name}`` in place of the recording's name.

    ``layout``: the layout of its folder; ``healthy``: it builds without errors.
    """

    label: str
    layout: str
    files: dict[str, bytes]
    healthy: bool = True


LISTS = "lists"
"""The layout of a folder whose split lists are damaged, not its recordings."""


def make_seeds() -> list[Seed]:
    """One recording of each kind; the same bytes every time."""
    with tempfile.TemporaryDirectory() as folder:
        return _Maker(Path(folder)).seeds()


def real_seeds(folder: Path) -> list[Seed]:
    """Real recordings in a folder, without files too large to be copied often."""
    kinds = (*VIDEO_SUFFIXES, *AUDIO_SUFFIXES)
    files = [p for p in sorted(folder.rglob("*")) if p.suffix in kinds and p.is_file()]
    files = [path for path in files if path.stat().st_size <= _LARGEST_REAL]
    sounds = [path for path in files if path.suffix in AUDIO_SUFFIXES]
    seeds = []
    for video in (path for path in files if path.suffix in VIDEO_SUFFIXES):
        beside = [sound for sound in sounds if sound.stem == video.stem] or [None, *sounds]
        for sound in beside:
            content = {f"{{name}}{video.suffix}": video.read_bytes()}
            if sound is not None:
                content[f"{{name}}{sound.suffix}"] = sound.read_bytes()
            label = "+".join(path.name for path in (video, sound) if path is not None)
            seeds.append(Seed(f"real {label}", "folder", content, healthy=False))
    return seeds


class _Maker:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        ground = equirectangular_texture(*_SIZE)
        self._frames = [
            grey_frame(np.ascontiguousarray(np.roll(ground, 3 * number, axis=1)))
            for number in range(_SECONDS * _FPS)
        ]
        self._foa = encode_foa(noise(_SECONDS), unit_vector(40, 15))

    def seeds(self) -> list[Seed]:
        mp4, sa3d = self._h264("a.mp4", self._foa), self._sa3d()
        bare, wav = self._h264("b.mp4"), self._sound("a.wav")
        youtube = self._audio("a.m4a", "aac", self._youtube(), "5.1")
        opus = self._audio("a.opus", "libopus", self._foa, "ambisonic 1", {"mapping_family": "2"})
        webm = self._packed("a.webm", "libvpx-vp9", "libopus")
        info = {"id": "{name}", "requested_formats": [{"format_note": "equi"}], "duration": 2}
        labels = "".join(f"{frame},{frame % 13},0,{frame - 10},5\n" for frame in range(20)).encode()
        folder = [
            ("H.264 + AAC", {".mp4": mp4}),
            ("H.264 + PCM, SA3D", {".mov": sa3d}),
            ("H.264 + PCM", {".mkv": self._h264("a.mkv", self._foa)}),
            ("VP9 + Opus", {".webm": webm}),
            ("VP8 + Opus", {".webm": self._packed("b.webm", "libvpx", "libopus")}),
            ("HEVC + AAC", {".mp4": self._packed("c.mp4", "libx265", "aac")}),
            ("fragments", {".mp4": self._packed("d.mp4", "libx264", "aac", fragmented=True)}),
            ("MJPEG + FLAC", {".mkv": self._packed("c.mkv", "mjpeg", "flac")}),
            ("sv3d", {".mp4": self._sv3d(bare), ".wav": wav}),
            ("turned", {".mp4": self._h264("e.mp4", turned=True), ".wav": wav}),
            ("stereo", {".mkv": self._h264("e.mkv", stereo=True), ".wav": wav}),
            ("FLAC beside", {".mp4": bare, ".flac": self._sound("a.flac")}),
            ("Vorbis beside", {".mp4": bare, ".ogg": self._sound("a.ogg")}),
            ("Opus beside", {".mp4": bare, ".opus": opus}),
            ("FuMa beside", {".mp4": bare, ".amb": wav}),
            ("six channels beside", {".mkv": self._h264("f.mkv"), ".m4a": youtube}),
            ("transport stream", {".mts": self._converted(bare, "a.mts"), ".wav": wav}),
            ("Theora", {".ogv": self._converted(bare, "a.ogv", "libtheora"), ".wav": wav}),
            ("CAF beside", {".3gp": self._converted(bare, "a.3gp"), ".caf": self._sound("a.caf")}),
            ("Wave64 beside", {".mp4": bare, ".w64": self._sound("a.w64")}),
            ("WebM beside", {".mp4": bare, ".webm": self._converted(opus, "c.webm")}),
            (
                "parts of a download",
                {
                    ".f313.webm": self._converted(bare, "f313.webm", "libvpx"),
                    ".f338.webm": self._converted(opus, "f338.webm"),
                },
            ),
        ]
        seeds = [
            Seed(
                label, "folder", {f"{{name}}{suffix}": content for suffix, content in files.items()}
            )
            for label, files in folder
        ]
        # Most of what containers say of 360° video and ambisonics is not worth a build of its own.
        seeds += [
            Seed(label, "folder", {f"{{name}}{s}": c for s, c in files.items()}, healthy=False)
            for label, files in self._tagged(bare, wav).items()
        ]
        whole = self._long()
        return [
            *seeds,
            Seed("YT-360", "yt360", {f"{part}/{{name}}-80{s}": c for part, s, c in whole}),
            Seed(
                "STARSS",
                "starss",
                {
                    "foa_dev/dev-train-x/{name}.wav": wav,
                    "video_dev/dev-train-x/{name}.mp4": bare,
                    "metadata_dev/dev-train-x/{name}.csv": labels,
                },
            ),
            Seed(
                "yt-dlp",
                "yt-dlp",
                {"{name}.mp4": mp4, "{name}.info.json": json.dumps(info).encode()},
            ),
            Seed(
                "split lists",
                LISTS,
                {
                    "{name}.mp4": mp4,
                    "train.txt": b"{name}\nother\n",
                    "test.csv": b"id,second\none,1\ntwo,2\n",
                },
                healthy=False,
            ),
            Seed("Sphere360", "sphere360", {"{name}_7.webm": webm}),
            Seed(
                "YT-Ambigen",
                "yt-ambigen",
                {"video/{name}_7.mp4": bare, "audio/{name}_7.opus": opus},
            ),
        ]

    def _h264(
        self,
        name: str,
        sound: NDArray[np.float32] | None = None,
        layout: str = "quad",
        turned: bool = False,
        stereo: bool = False,
    ) -> bytes:
        path = self._folder / name
        metadata = {"stereo_mode": "top_bottom"} if stereo else {}
        angle = 180 if turned else 0
        write_video(path, self._frames, _FPS, sound, layout, 48000, metadata, angle)
        return path.read_bytes()

    def _tagged(self, bare: bytes, wav: bytes) -> dict[str, dict[str, bytes]]:
        """Files with tags for 360° video and ambisonics, by what they are called."""
        height, width = _SIZE
        area = crop_fields(width, height, 2 * width, 2 * height, width // 2, height // 2)
        mesh = box(b"mshp", struct.pack(">2I4s", 0, 0, b"raw ") + box(b"mesh", bytes(60)))
        w, y, z, x = self._foa
        six = self._h264("s.mp4", np.stack([y, z, w, 0 * w, x, 0 * w]), "5.1")
        spatial = vexu(b"hequ", 11, b"side")
        return {
            "cubemap": {".mp4": self._sv3d(bare, cbmp(), stereo=2), ".wav": wav},
            "mesh": {".mp4": self._sv3d(bare, mesh, stereo=3), ".wav": wav},
            "spherical v1": {
                ".mp4": self._with(bare, lambda path: add_v1(path, **area)),
                ".wav": wav,
            },
            "spatial": {
                ".mp4": self._with(bare, lambda path: insert_box(path, b"avc1", b"vexu", spatial)),
                ".wav": wav,
            },
            "Matroska's projection": {".mkv": self._projection(bare), ".wav": wav},
            "six channels, SA3D": {
                ".mp4": self._with(
                    six, lambda path: insert_box(path, b"mp4a", b"SA3D", sa3d(range(6)))
                )
            },
            "B-format beside": {".mp4": bare, ".wav": self._b_format()},
        }

    def _with(self, content: bytes, change: Callable[[Path], None]) -> bytes:
        """A file's content after a change of the file."""
        path = self._folder / "changed.mp4"
        path.write_bytes(content)
        change(path)
        return path.read_bytes()

    def _sa3d(self) -> bytes:
        self._h264("s.mov", self._foa)
        path = self._folder / "s.mov"
        insert_box(path, b"fl32", b"SA3D", sa3d(range(4)))
        return path.read_bytes()

    def _sv3d(self, bare: bytes, projection: bytes = b"", stereo: int = 0) -> bytes:
        projection = projection or equi(top=1 / 16, left=1 / 4, right=1 / 4)

        def change(path: Path) -> None:
            add_sv3d(path, prhd(), projection)
            add_st3d(path, stereo)

        return self._with(bare, change)

    def _projection(self, bare: bytes) -> bytes:
        """The sv3d and st3d boxes as Matroska stores them."""
        source, path = self._folder / "p.mp4", self._folder / "p.mkv"
        source.write_bytes(self._sv3d(bare, stereo=1))
        run_ffmpeg("-i", source, "-c", "copy", "-strict", "unofficial", "-bitexact", path)
        return path.read_bytes()

    def _b_format(self) -> bytes:
        path = self._folder / "b.wav"
        with soundfile.SoundFile(path, "w", 48000, 4, "FLOAT", format="WAVEX") as file:
            file.write(self._foa.T)
        plain = bytes.fromhex("0300000000001000800000aa00389b71")
        return path.read_bytes().replace(plain, bytes.fromhex("030000002107d3118644c8c1ca000000"))

    def _sound(self, name: str) -> bytes:
        path = self._folder / name
        if path.suffix == ".wav":
            write_wav(path, self._foa)
        else:
            soundfile.write(path, self._foa.T, 48000)
        return path.read_bytes()

    def _converted(self, content: bytes, name: str, codec: str = "copy") -> bytes:
        """A file in another container, with the same bytes every time."""
        source, path = self._folder / f"source-{name}", self._folder / name
        source.write_bytes(content)
        run_ffmpeg("-i", source, "-c", codec, "-fflags", "+bitexact", "-flags", "+bitexact", path)
        return path.read_bytes()

    def _youtube(self) -> NDArray[np.float32]:
        w, y, z, x = self._foa
        return np.stack([x, y, w, np.zeros_like(w), z, np.zeros_like(w)])

    def _audio(
        self,
        name: str,
        codec: str,
        sound: NDArray[np.float32],
        layout: str,
        options: dict[str, str] | None = None,
    ) -> bytes:
        path = self._folder / name
        write_audio(path, codec, sound, layout, options)
        return path.read_bytes()

    def _long(self) -> list[tuple[str, str, bytes]]:
        """Video and audio of ten seconds, as in YT-360: (folder, suffix, content) each."""
        path = self._folder / "long.mp4"
        frames = [self._frames[number % len(self._frames)][:, :] for number in range(80)]
        write_video(path, frames, 8)
        sound = np.tile(self._youtube(), (1, 10 // _SECONDS))
        return [
            ("video", ".mp4", path.read_bytes()),
            ("audio", ".m4a", self._audio("long.m4a", "aac", sound, "5.1")),
        ]

    def _packed(self, name: str, video: str, audio: str, fragmented: bool = False) -> bytes:
        """A file with other codecs than those of `write_video`."""
        path = self._folder / name
        options = {"movflags": "frag_keyframe+empty_moov"} if fragmented else {}
        quick = {"libx265": {"x265-params": "log-level=error"}, "libx264": {"preset": "ultrafast"}}
        layout = "ambisonic 1" if audio == "libopus" else "quad"
        with av.open(str(path), "w", options=options) as container:
            picture = container.add_stream(video, rate=_FPS, options=quick.get(video, {}))
            picture.height, picture.width = _SIZE
            picture.pix_fmt = "yuvj420p" if video == "mjpeg" else "yuv420p"
            family = {"mapping_family": "2"} if audio == "libopus" else {}
            sound = container.add_stream(audio, rate=48000, layout=layout, options=family)
            sound.bit_rate = 128_000
            for number, frame in enumerate(self._frames):
                image = av.VideoFrame.from_ndarray(frame, format="yuv420p")
                image.pts, image.time_base = number, Fraction(1, _FPS)
                container.mux(picture.encode(image.reformat(format=picture.pix_fmt)))
            container.mux(picture.encode(None))
            kind = sound.format.name
            step = 960
            for start in range(0, self._foa.shape[1] - step + 1, step):
                part = np.ascontiguousarray(self._foa[:, start : start + step])
                if kind == "s16":
                    part = np.rint(part * 32767).astype(np.int16)
                packed = part if kind.endswith("p") else part.T.reshape(1, -1)
                block = av.AudioFrame.from_ndarray(np.ascontiguousarray(packed), kind, layout)
                block.sample_rate, block.pts = 48000, start
                container.mux(sound.encode(block))
            container.mux(sound.encode(None))
        return path.read_bytes()
