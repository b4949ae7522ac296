"""Label maps of a dataset are images of a size that is known before they are unpacked."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from avprep.errors import ClipError
from avprep.sample.label_maps import crop_label_maps
from shards.schema import View

VIEW = View(0.0, 0.0, 60.0, 60.0)


def crop(folder: Path) -> int:
    """The number of label maps of a second."""
    return len(crop_label_maps(folder, 0.0, 1.0, (VIEW,), 16)[0])


def test_what_is_no_map_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "0000.png"
    cv2.imwrite(str(path), np.full((20, 40), 3, np.uint8))
    good = path.read_bytes()
    assert crop(tmp_path) == 1
    header = struct.pack(">4sIIBBBBB", b"IHDR", 30_000, 30_000, 8, 0, 0, 0, 0)
    large = good[:12] + header + struct.pack(">I", zlib.crc32(header)) + good[33:]
    assert cv2.imwrite(str(tmp_path / "x.jpg"), np.full((20, 40), 3, np.uint8))
    for content in (large, (tmp_path / "x.jpg").read_bytes(), good[:40], b""):
        path.write_bytes(content)
        with pytest.raises(ClipError, match=r"0000\.png is not a label map; extract it again"):
            crop(tmp_path)


def test_colours_are_no_labels(tmp_path: Path) -> None:
    """A palette's entries are colours, and fewer bits come out stretched."""
    labels = np.tile(np.array([0, 3, 17, 80], np.uint8), (20, 10))
    grey = Image.fromarray(labels)
    path = tmp_path / "0000.png"
    for image, good in (
        (grey, True),
        (grey.convert("RGB"), True),
        (grey.convert("P"), False),
        (grey.convert("1"), False),
        (Image.fromarray(np.stack([labels, labels, 0 * labels], axis=-1)), False),
    ):
        image.save(path)
        if good:
            assert crop(tmp_path) == 1
            continue
        with pytest.raises(ClipError, match="holds colours instead of label numbers"):
            crop(tmp_path)


def test_a_pipe_or_a_device_is_no_map(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "0000.png")
    (tmp_path / "0001.png").symlink_to("/dev/zero")
    assert crop(tmp_path) == 0
