"""Describe files and decode a clip's audio with ffmpeg."""

from __future__ import annotations

import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path

import ffmpeg
import numpy as np
from numpy.typing import NDArray

from avprep.errors import ClipError, UserError
from avprep.media.find_ffmpeg import check_end, ends_with_parent, find_ffmpeg, last_line

# Only container formats of recordings: a playlist or script disguised as a video could make ffmpeg
# open other files or URLs.
FORMATS = "mov,matroska,ogg,wav,w64,flac,avi,mpegts,caf,aiff,mp3,aac"
PROTOCOLS = "file"
_PREROLL_S = 0.1
"""Decoders of lossy audio need the samples before the requested start."""
_DESCRIBE_TIMEOUT_S = 30.0
_MAX_EXTRA_S = 10.0
_MAX_MESSAGE_BYTES = 4096


def ffmpeg_path() -> str:
    """Path of an ffmpeg that runs. Raises UserError if there is none."""
    return find_ffmpeg().path


def describe(path: Path) -> str:
    """ffmpeg's text about a file's tracks and their side data.

    Raises ClipError, with ffmpeg's reason, if it cannot describe the file.
    """
    command = [ffmpeg_path(), "-hide_banner", "-nostdin", "-protocol_whitelist", PROTOCOLS]
    command += ["-format_whitelist", FORMATS, "-i", safe_url(path)]
    try:
        done = subprocess.run(
            [*ends_with_parent(), *command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=_DESCRIBE_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        raise ClipError(
            f"{path.name} could not be described by ffmpeg within {_DESCRIBE_TIMEOUT_S:g} s; it is "
            "damaged, or its disk is slow: try it again"
        ) from None
    except OSError as error:
        raise UserError(f"{command[0]} cannot be run: {error.strerror}") from None
    check_end(path.name, done.returncode, done.stderr)
    text = done.stderr.decode(errors="replace")
    if "Input #0" not in text:  # its exit status is never 0, since no output is asked for
        raise ClipError(
            f"{path.name} is no video or sound to {command[0]} ({last_line(done.stderr)}); name "
            "another ffmpeg in AVPREP_FFMPEG, or download the file again"
        )
    return text


def safe_url(path: Path) -> str:
    """A path in a form that ffmpeg takes literally, even if it looks like a URL or an option."""
    return f"file:{path.absolute()}"


@dataclass(frozen=True)
class AudioRequest:
    """The part of a file's audio to decode: ``duration_s`` from time stamp ``start_s`` of the track
    number ``track``, in a file whose first track starts at ``file_start_s``.

    Audio that deviates from its time stamps by more than ``max_slip_s`` is corrected at once.
    ``plain_layout``: the file defines no channel layout of its own. ``is_pcm``: each sample stands
    for itself, so that a decoder needs none before the start.
    """

    audio: Path
    track: int
    file_start_s: float
    start_s: float
    duration_s: float
    max_slip_s: float
    channels: int
    sample_rate: int
    plain_layout: bool
    timeout_s: float
    is_pcm: bool = False

    @property
    def decode_from_s(self) -> float:
        """Time stamp at which decoding starts. Not before the file's start: some containers cannot
        seek there."""
        return max(self.start_s - _PREROLL_S, min(self.start_s, self.file_start_s))

    def command(self) -> list[str]:
        limits: dict[str, object] = {
            "protocol_whitelist": PROTOCOLS,
            "format_whitelist": FORMATS,
            "threads": 1,
        }
        # Seek by the file's own time stamps, not relative to the start that ffmpeg finds.
        limits |= {"seek_timestamp": 1, "noaccurate_seek": None}
        preroll_s = self.start_s - self.decode_from_s
        if self.is_pcm:
            # After a seek, ffmpeg would skip what an edit list cuts from the file's beginning.
            limits["flags2"] = "+skip_manual"
        # vn: a video track in the same file need not be read.
        source = ffmpeg.input(
            safe_url(self.audio), **limits, ss=f"{self.decode_from_s:.6f}", vn=None
        )
        # Audio that starts late is padded and gaps are filled, to stay synchronous with the video;
        # channels stay in the decoder's order.
        audio = (
            source[str(self.track)]
            .filter("atrim", start=f"{preroll_s:.6f}", end=f"{preroll_s + self.duration_s:.6f}")
            .filter("asetpts", f"PTS-{preroll_s:.6f}/TB")
            .filter("aresample", **{"async": 1, "first_pts": 0, "min_hard_comp": self.max_slip_s})
        )
        graph = audio.output("pipe:1", format="f32le", acodec="pcm_f32le").global_args(
            *("-nostdin", "-hide_banner", "-loglevel", "error", "-filter_complex_threads", "1")
        )
        return [str(part) for part in graph.compile(cmd=ffmpeg_path())]


class FfmpegAudioDecoder:
    """Context manager that runs an `AudioRequest` in ffmpeg; `audio()` returns the result.

    ffmpeg decodes files with their own channel layouts safely, and a hang or crash on a broken file
    stays in its process, which is killed after ``timeout_s`` seconds.
    """

    def __init__(self, request: AudioRequest) -> None:
        self._request = request
        self._timed_out = False
        self._raw = bytearray()
        self._messages = b""

    def __enter__(self) -> FfmpegAudioDecoder:
        try:
            self._process = subprocess.Popen(
                [*ends_with_parent(), *self._request.command()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
            )
        except OSError as error:
            raise UserError(f"{ffmpeg_path()} cannot be run: {error.strerror}") from None
        self._readers = [
            threading.Thread(target=self._read_audio, daemon=True),
            threading.Thread(target=self._read_messages, daemon=True),
        ]
        self._watchdog = threading.Timer(self._request.timeout_s, self._time_out)
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
        # Reference cycles: the audio would stay in memory until Python's garbage collection.
        del self._watchdog, self._readers

    def audio(self) -> NDArray[np.float32]:
        """The decoded audio (channels, samples), interleaved in memory.

        Raises ClipError if ffmpeg exceeded the time limit or was ended. Its other errors are in
        `message`.
        """
        for reader in self._readers:
            reader.join()
        status = self._process.wait()
        if self._timed_out:
            raise ClipError(timeout_message(self._request.timeout_s))
        check_end(self._request.audio.name, status, self._messages)
        channels = self._request.channels
        whole = len(self._raw) // (4 * channels) * channels
        return np.frombuffer(self._raw, dtype="<f4", count=whole).reshape(-1, channels).T

    @property
    def message(self) -> str:
        """ffmpeg's last error message, as one line that is the same in every run."""
        message = last_line(self._messages)
        if not message and self._process.returncode:
            message = f"ffmpeg ended with exit status {self._process.returncode}"
        return message

    def _time_out(self) -> None:
        self._timed_out = True
        self._process.kill()

    def _read_audio(self) -> None:
        request = self._request
        max_samples = round((request.duration_s + _MAX_EXTRA_S) * request.sample_rate)
        max_bytes = 4 * request.channels * max_samples
        if self._process.stdout is not None:
            with self._process.stdout as pipe:
                while part := pipe.read(1 << 18):
                    # Broken time stamps can make ffmpeg fill endless gaps.
                    if len(self._raw) < max_bytes:
                        self._raw += part

    def _read_messages(self) -> None:
        if self._process.stderr is not None:
            with self._process.stderr as pipe:
                while part := pipe.read(1 << 16):
                    self._messages = (self._messages + part)[-_MAX_MESSAGE_BYTES:]


def timeout_message(timeout_s: float) -> str:
    """The error message for a clip whose decoding exceeded the time limit."""
    return (
        f"decoding took more than {timeout_s:g} s and was stopped; the file may be broken, or "
        "allow more with --clip-timeout"
    )
