"""Read the tags for ambisonics that containers store.

Sources: Google's Spatial Audio RFC (SA3D; github.com/google/spatial-media), RFC 8486 (Opus mapping
families 2 and 3), R. W. Dobson's "WAVE-FORMAT-EXTENSIBLE and B-Format Audio" (.amb), Apple's Core
Audio Format Specification (the layout tags in CAF's and QuickTime's chan).
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from avprep.errors import ClipError
from avprep.formats.matroska import read_matroska_tracks
from avprep.formats.mp4_boxes import Mp4Index, Mp4Track, read_mp4_index
from avprep.media.decode_audio import read_excerpt
from avprep.media.tracks import AudioTrack

_AUDIO = b"soun"
_MATROSKA_AUDIO = 2
# AAC stores 5.1 as C, L, R, Ls, Rs, LFE, which decoders reorder to FL, FR, FC, LFE, BL, BR.
_AAC_51 = (2, 0, 1, 4, 5, 3)
_EXCERPT_S = 4.0
_WINDOWS_S = 0.1
_LEVEL_DB, _CLEARER_DB = 2.5, 2.0
"""W is level with the rest if it is so far from it, and the other order's is so much farther."""
_B_FORMAT = bytes.fromhex("2107d3118644c8c1ca000000")
"""SUBTYPE_AMBISONIC_B_FORMAT_…, but for its first four bytes, which say how samples are coded."""
_EXTENSIBLE = 0xFFFE
_HORIZONTAL = (3, 5, 7)
"""Channel counts of B-format without height, whose channels are W, X, Y, U, V, …"""
_W64_FMT = bytes.fromhex("666d7420f3acd3118cd100c04f8edb8a")
_LAYOUT_TAGS = {107: "fuma", 190: "ambix", 191: "n3d"}
"""kAudioChannelLayoutTag_Ambisonic_B_Format, _HOA_ACN_SN3D and _HOA_ACN_N3D (upper 16 bits)."""
_LAYOUT_NAMES = {"fuma": "B-format", "ambix": "ACN and SN3D", "n3d": "ACN and N3D"}
_MOST_CHUNKS = 1000
_FAMILY_3 = "Opus with mapping family 3 (ambisonics behind a matrix), which ffmpeg does not decode"


@dataclass(frozen=True)
class AudioTags:
    """What a container says about ambisonics, and where it says so.

    ``channels`` are the indices of W, Y, Z, X among the decoded channels (None: as in
    ``convention``). ``sure`` is False if ``reason`` names a doubt about them.
    """

    channels: tuple[int, int, int, int] | None
    reason: str
    convention: str = "ambix"
    sure: bool = True


def read_audio_tags(path: Path, audio: AudioTrack) -> AudioTags | None:
    """Read an audio track's tags: SA3D and the layout's tag in mp4, mov and CAF files, the channel
    mapping family of Opus, the GUID in WAV and W64 files.

    None if the container has no such tag. Raises ClipError for one that is not supported.
    """
    if audio.codec.endswith("opus"):
        head = audio.extradata or b""
        family = head[18] if head.startswith(b"OpusHead") and len(head) > 18 else None
        if family == 3:
            raise ClipError(_unreadable(path, _FAMILY_3))
        if family == 2 and audio.channels >= 4:
            return AudioTags((0, 1, 2, 3), "Opus mapping family 2")
        return None
    try:
        index = read_mp4_index(path)
        if index is not None:
            return _mp4_tags(path, audio, index)
        return _file_tags(path, audio)
    except OSError:
        return None  # decoding the clips will report the fault


def unreadable_audio(path: Path) -> str | None:
    """A sentence on audio that ffmpeg lists as no audio, if a file has such; else None."""
    try:
        codecs = _codecs(path)
    except OSError:
        return None
    return next((_unreadable(path, codec) for codec in codecs), None)


def _unreadable(path: Path, codec: str) -> str:
    return (
        f"{path.name} holds its sound as {codec}; put it beside the video in another form (wav, "
        "flac, or Opus with mapping family 2), as a file of the same name"
    )


def _codecs(path: Path) -> list[str]:
    """Names of a file's audio codecs that ffmpeg does not decode."""
    index = read_mp4_index(path)
    if index is not None:
        found = []
        for entry in (e for t in index.tracks if t.kind == _AUDIO for e in t.entries):
            heads = [box.content for box in entry.boxes if box.name == b"dOps"]
            if any(head[10:11] == b"\3" for head in heads):
                found.append(_FAMILY_3)
            elif entry.name == b"iamf":
                found.append("IAMF, which this ffmpeg does not read")
            elif entry.name in (b"mha1", b"mha2", b"mhm1", b"mhm2"):
                found.append("MPEG-H 3D audio, which ffmpeg does not decode")
        return found
    tracks = read_matroska_tracks(path)
    if tracks is not None:
        heads = [track.private for track in tracks if track.kind == _MATROSKA_AUDIO]
    else:
        with open(path, "rb") as file:
            page = file.read(512)
        heads = [page[page.find(b"OpusHead") :]] if page.startswith(b"OggS") else []
    return [_FAMILY_3 for head in heads if head.startswith(b"OpusHead") and head[18:19] == b"\3"]


def _mp4_tags(path: Path, audio: AudioTrack, index: Mp4Index) -> AudioTags | None:
    track = index.track(audio.track_id, _AUDIO)
    if track is None:
        return None
    box = _box(track, b"SA3D")
    if box is not None:
        channels = audio.channels
        if audio.codec.startswith("pcm_"):  # ffmpeg believes the box, and mixes channels up
            channels = track.entries[0].channels
        return _sa3d_tags(path, replace(audio, channels=channels), box)
    chan = _box(track, b"chan")
    return None if chan is None else _layout_tags(chan[4:])


def _box(track: Mp4Track, name: bytes) -> bytes | None:
    boxes = (box for entry in track.entries for box in entry.boxes)
    return next((box.content for box in boxes if box.name == name), None)


def _sa3d_tags(path: Path, audio: AudioTrack, box: bytes) -> AudioTags:
    """What an SA3D box says. Raises ClipError if it says nothing that can be followed."""
    count = struct.unpack_from(">I", box, 8)[0] if len(box) >= 12 else 0
    fewest = audio.channels if audio.codec.startswith("pcm_") else 4
    if not fewest <= count <= audio.channels or len(box) < 12 + 4 * count:
        raise ClipError(
            f"{path.name} contradicts itself: its SA3D box describes {count} channels, and its "
            f"sound has {audio.channels}; --foa-convention says what they are"
        )
    version, kind, order, ordering, normalization = struct.unpack_from(">BBIBB", box)
    if version or kind & 0x7F or ordering or normalization:
        raise ClipError(
            f"{path.name} has an SA3D box of version {version}, type {kind & 0x7F}, ordering "
            f"{ordering} and normalization {normalization}, of which only 0 is supported (ACN, "
            "SN3D); --foa-convention names another convention"
        )
    components = struct.unpack_from(f">{count}I", box, 12)
    if order < 1 or any(component not in components for component in range(4)):
        raise ClipError(
            f"{path.name} has an SA3D box of order {order} whose channels are "
            f"{', '.join(map(str, components[:16]))}, without all of W, Y, Z and X (0 to 3); "
            "--foa-convention says what they are"
        )
    stereo = ", head-locked stereo dropped" if kind & 0x80 else ""
    reason = f"SA3D box, ACN and SN3D{stereo}"
    places = [components.index(component) for component in range(4)]
    sure = count == audio.channels
    if not sure:
        reason += f", for {count} of {audio.channels} channels"
    if audio.codec == "aac" and audio.channels == 6:
        is_decoders, clear = _is_decoder_order(path, audio, places)
        if not is_decoders:
            places = [_AAC_51[place] for place in places]
        if not clear:
            sure = False
            order_name = "the decoder's" if is_decoders else "AAC's"
            reason += f", in {order_name} order, which its sound does not confirm"
        elif is_decoders:
            reason += ", in the decoder's order, in which W is level with the rest"
    w, y, z, x = places
    return AudioTags((w, y, z, x), reason, sure=sure)


def _is_decoder_order(path: Path, audio: AudioTrack, places: list[int]) -> tuple[bool, bool]:
    """Whether an SA3D box numbers six AAC channels as decoders deliver them, as in files that
    ffmpeg made, not as AAC stores them; and whether the sound says so clearly.

    In the right order W has the energy of the three others together. AAC's is taken where both are
    alike.
    """
    begin_s = audio.begin_s
    if audio.end_s is not None:
        begin_s = max(begin_s, (audio.begin_s + audio.end_s - _EXCERPT_S) / 2)
    try:
        excerpt = read_excerpt(path, audio, begin_s, _EXCERPT_S)
    except ClipError:
        return False, False  # decoding the clips will report the fault
    decoder = _unevenness_db(excerpt[places], audio.sample_rate)
    stored = _unevenness_db(excerpt[[_AAC_51[place] for place in places]], audio.sample_rate)
    is_decoders = decoder + _CLEARER_DB < stored
    clear = min(decoder, stored) < _LEVEL_DB and abs(decoder - stored) > _CLEARER_DB
    return is_decoders, clear


def _unevenness_db(field: NDArray[np.float32], sample_rate: int) -> float:
    """How far W is from the energy of the three others, over the loud parts of a field (4, n)."""
    size = max(1, round(_WINDOWS_S * sample_rate))
    count = field.shape[1] // size
    parts = field[:, : count * size].reshape(4, count, size).astype(np.float64)
    energies = np.nan_to_num(np.einsum("cns,cns->cn", parts, parts))
    loud = energies.sum(axis=0) > 1e-3 * energies.sum(axis=0).max(initial=0.0)
    if not loud.any():
        return float("inf")
    w, others = energies[0, loud], energies[1:, loud].sum(axis=0)
    floor = 1e-9 * (w + others)
    return float(np.median(np.abs(10 * np.log10((others + floor) / (w + floor)))))


def _layout_tags(layout: bytes) -> AudioTags | None:
    """What the tag of an audio channel layout (CAF's chan chunk) says about ambisonics."""
    convention = _LAYOUT_TAGS.get(int.from_bytes(layout[:2], "big"))
    if convention is None:
        return None
    reason = f"its channel layout says {_LAYOUT_NAMES[convention]}"
    return AudioTags(None, reason, convention)


def _file_tags(path: Path, audio: AudioTrack) -> AudioTags | None:
    """Tags in the chunks of WAV, W64 and CAF files."""
    with open(path, "rb") as file:
        start = file.read(4)
        if start == b"caff":
            layout = _chunk(file, 8, b"chan", size_bytes=8, little=False)
            return None if layout is None else _layout_tags(layout)
        if start in (b"RIFF", b"RF64"):
            form = _chunk(file, 12, b"fmt ", size_bytes=4, little=True)
        elif start == b"riff":
            form = _chunk(file, 40, _W64_FMT, size_bytes=8, little=True)
        else:
            return None
    says_b_format = (
        form is not None
        and len(form) >= 40
        and int.from_bytes(form[:2], "little") == _EXTENSIBLE
        and form[28:40] == _B_FORMAT
    )
    is_amb = path.suffix.lower() == ".amb"
    if (says_b_format or is_amb) and audio.channels in _HORIZONTAL:
        raise ClipError(
            f"{path.name} holds horizontal B-format ({audio.channels} channels without height), "
            "which is not supported; add a silent Z as its fourth channel (W, X, Y, Z)"
        )
    if not says_b_format or is_amb:
        return None
    return AudioTags(None, "its WAVE format says B-format, which is FuMa", "fuma")


def _chunk(file: BinaryIO, start: int, name: bytes, size_bytes: int, little: bool) -> bytes | None:
    """The first 64 bytes of a chunk's content, in a list of chunks that begins at ``start``."""
    end = file.seek(0, io.SEEK_END)
    for _ in range(_MOST_CHUNKS):
        if start + len(name) + size_bytes > end:
            return None
        file.seek(start)
        header = file.read(len(name) + size_bytes)
        size = int.from_bytes(header[len(name) :], "little" if little else "big")
        if header.startswith(name):
            return file.read(min(size, 64))
        if len(name) == 16:  # W64: sizes include the header, and chunks begin at multiples of 8
            if size < len(header):
                return None
            start += (size + 7) // 8 * 8
        else:
            start += len(header) + size + (size % 2 if little else 0)
    return None
