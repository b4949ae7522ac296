"""Finding ffmpeg, and the one pass of it that decodes a clip's picture and sound."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO

import ffmpeg
import numpy as np
from numpy.typing import NDArray

from avprep.errors import ClipError, UserError

# Only containers that hold recordings: a playlist or script that claims to be a video could make
# ffmpeg open other files or addresses.
FORMATS = "mov,matroska,ogg,wav,w64,flac,avi,mpegts,caf,aiff,mp3,aac"
PROTOCOLS = "file"
_TIME_TOLERANCE_S = 0.002
_LARGEST_SLIP_S = 0.02
"""Sound that is off its time stamps by more is put right at once."""
_PREROLL_S = 0.1
"""Decoders of lossy sound need what came before."""
_DESCRIBE_TIMEOUT_S = 30.0


@cache
def ffmpeg_path() -> str:
    """ffmpeg from ``AVPREP_FFMPEG``, else the PATH, else the imageio-ffmpeg package.

    Raises UserError where none of these has it.
    """
    chosen = os.environ.get("AVPREP_FFMPEG")
    if chosen:
        found = shutil.which(chosen)
        if found is None:
            raise UserError(
                f"AVPREP_FFMPEG is {chosen!r}, which is no program; correct or unset it"
            )
        return found
    found = shutil.which("ffmpeg")
    if found is not None:
        return found
    try:
        import imageio_ffmpeg

        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except (ImportError, RuntimeError):
        raise UserError(
            "no ffmpeg found; `pip install imageio-ffmpeg`, put one on the PATH or name it in "
            "AVPREP_FFMPEG"
        ) from None


@cache
def ffmpeg_version() -> str:
    """The version that ffmpeg says of itself."""
    answer = subprocess.run(
        [ffmpeg_path(), "-hide_banner", "-version"], capture_output=True, text=True, check=False
    )
    match = re.match(r"ffmpeg version (\S+)", answer.stdout)
    return match[1] if match else "unknown"


def describe(path: Path) -> str:
    """What ffmpeg prints of a file's tracks and their side data; empty if it takes too long."""
    command = [ffmpeg_path(), "-hide_banner", "-nostdin", "-protocol_whitelist", PROTOCOLS]
    command += ["-format_whitelist", FORMATS, "-i", safe_url(path)]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=_DESCRIBE_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        return ""
    return done.stderr.decode(errors="replace")


def safe_url(path: Path) -> str:
    """A path as ffmpeg takes it literally, whatever its name looks like."""
    return f"file:{path.absolute()}"


@dataclass(frozen=True)
class Decoding:
    """What one pass of ffmpeg delivers: frames of size (3/2·height, width) and raw sound.

    ``video_start_s`` and ``audio_start_s`` are one moment, in the time stamps of either file.
    ``deep``: frames have 10 bits, else 8. ``crop`` is the part (left, top, width, height) of the
    file's frames that is taken, None for all of it; ``rescale``: what is taken is of another size
    or of full range; ``rotate``: frames are turned as the file's display matrix says.
    """

    video: Path
    audio: Path
    video_start_s: float
    audio_start_s: float
    duration_s: float
    fps: float
    height: int
    width: int
    deep: bool
    crop: tuple[int, int, int, int] | None
    rescale: bool
    rotate: bool
    channels: int
    sample_rate: int
    timeout_s: float

    def command(self, sound_descriptor: int) -> list[str]:
        # One thread: a build runs one clip on each core, which scales better than threads in one.
        limits: dict[str, object] = {
            "protocol_whitelist": PROTOCOLS,
            "format_whitelist": FORMATS,
            "threads": 1,
        }
        if not self.rotate:
            limits |= {"noautorotate": None}
        # Time stamps count as they stand in the file, not from the start that ffmpeg finds. All
        # frames from the key frame on are taken, since an earlier one may be on screen still.
        limits |= {"seek_timestamp": 1, "noaccurate_seek": None}
        same_file = self.audio == self.video
        preroll_s = 0.0 if same_file else _PREROLL_S
        picture_in = ffmpeg.input(safe_url(self.video), **limits, ss=f"{self.video_start_s:.6f}")
        sound_in = picture_in
        if not same_file:
            start_s = self.audio_start_s - preroll_s
            sound_in = ffmpeg.input(safe_url(self.audio), **limits, ss=f"{start_s:.6f}")
        # Output frame n is what is on screen at n/fps: the last frame at or before it. Containers
        # round time stamps (Matroska to 1 ms), hence the tolerance.
        frames = (
            picture_in.video.filter("setpts", f"PTS-{_TIME_TOLERANCE_S}/TB")
            .filter("fps", fps=f"{self.fps:.9g}", start_time=0, round="up")
            .filter("trim", end=f"{self.duration_s:.6f}")
        )
        if self.crop is not None:
            left, top, width, height = self.crop
            frames = frames.filter("crop", width, height, left, top, exact=1)
        if self.rescale:
            frames = frames.filter("scale", self.width, self.height, out_range="tv")
        depth = "yuv420p10le" if self.deep else "yuv420p"
        picture = frames.output("pipe:1", format="rawvideo", pix_fmt=depth)
        # Sound that starts late is padded and gaps are filled, so that it stays with the picture;
        # the channels stay as the decoder delivers them.
        slip_s = min(_LARGEST_SLIP_S, 0.5 / self.fps)
        sound = (
            sound_in.audio.filter(
                "atrim", start=f"{preroll_s:.6f}", end=f"{preroll_s + self.duration_s:.6f}"
            )
            .filter("asetpts", f"PTS-{preroll_s}/TB")
            .filter("aresample", **{"async": 1, "first_pts": 0, "min_hard_comp": slip_s})
            .output(f"pipe:{sound_descriptor}", format="f32le", acodec="pcm_f32le")
        )
        graph = ffmpeg.merge_outputs(picture, sound).global_args(
            *("-nostdin", "-hide_banner", "-loglevel", "error", "-filter_complex_threads", "1")
        )
        return [str(part) for part in graph.compile(cmd=ffmpeg_path())]


def _widen(pipe: IO[bytes] | None) -> None:
    """Let a pipe hold a small frame, where the system allows it: fewer switches between sides."""
    if pipe is not None and hasattr(fcntl, "F_SETPIPE_SZ"):
        with suppress(OSError):
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, 1 << 20)


class Decoder:
    """Context manager that runs a `Decoding`: iterate over `frames`, then take `sound()`.

    A hang or a crash in a broken file stays in the child process, which is killed after
    ``timeout_s`` seconds.
    """

    def __init__(self, decoding: Decoding) -> None:
        self._decoding = decoding
        self._timed_out = False

    def __enter__(self) -> Decoder:
        read_end, write_end = os.pipe()
        try:
            self._process = subprocess.Popen(
                self._decoding.command(write_end),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                pass_fds=(write_end,),
            )
            _widen(self._process.stdout)
        except OSError as error:
            os.close(read_end)
            raise UserError(f"{ffmpeg_path()} cannot be run: {error.strerror}") from None
        finally:
            os.close(write_end)
        self._raw_sound = bytearray()
        self._messages = b""
        self._readers = [
            threading.Thread(target=self._read_sound, args=(read_end,), daemon=True),
            threading.Thread(target=self._read_messages, daemon=True),
        ]
        self._watchdog = threading.Timer(self._decoding.timeout_s, self._give_up)
        self._watchdog.daemon = True
        for thread in (*self._readers, self._watchdog):
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._watchdog.cancel()
        self._process.kill()
        self._process.wait()
        for reader in self._readers:
            reader.join()
        if self._process.stdout is not None:
            self._process.stdout.close()
        # They refer to each other: the sound would stay in memory until Python looks for cycles.
        del self._watchdog

    def frames(self) -> Iterator[NDArray[np.uint8 | np.uint16]]:
        """Planar YUV 4:2:0 frames (3/2·height, width); each is overwritten by the next."""
        depth = np.uint16 if self._decoding.deep else np.uint8
        frame = np.empty((self._decoding.height * 3 // 2, self._decoding.width), dtype=depth)
        target = memoryview(frame.data).cast("B")
        pipe = self._process.stdout
        if pipe is None:
            raise RuntimeError("ffmpeg was started without a pipe")
        filled = 0
        while count := pipe.readinto(target[filled:]):  # type: ignore[attr-defined]
            filled += count
            if filled == len(target):
                yield frame
                filled = 0

    def sound(self) -> NDArray[np.float32]:
        """The whole sound (channels, samples), interleaved in memory; call it after the last frame.

        Raises ClipError if ffmpeg took too long. Its other complaints are in `messages`.
        """
        for reader in self._readers:
            reader.join()
        self._process.wait()
        if self._timed_out:
            raise ClipError(
                f"decoding took more than {self._decoding.timeout_s:g} s and was stopped; the file "
                "may be broken, or allow more with --clip-timeout"
            )
        channels = self._decoding.channels
        whole = len(self._raw_sound) // (4 * channels) * channels
        samples = np.frombuffer(self._raw_sound, dtype="<f4", count=whole)
        return samples.reshape(-1, channels).T

    @property
    def messages(self) -> str:
        """ffmpeg's last complaint, in one line."""
        lines = [line for line in self._messages.decode(errors="replace").splitlines() if line]
        return lines[-1].strip() if lines else ""

    def _give_up(self) -> None:
        self._timed_out = True
        self._process.kill()

    def _read_sound(self, descriptor: int) -> None:
        with open(descriptor, "rb", buffering=0) as pipe:
            while part := pipe.read(1 << 18):
                self._raw_sound += part

    def _read_messages(self) -> None:
        if self._process.stderr is not None:
            with self._process.stderr as pipe:
                self._messages = pipe.read()
