"""The browser of this machine, for tests of pages: Debian's Chromium, driven by Playwright."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser

NAMES = ("chromium", "chromium-browser", "google-chrome")
OPTIONS = [
    *("--no-sandbox", "--no-first-run", "--disable-quic", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
    # WebGL without a graphics card, and sound without a click.
    *("--use-angle=swiftshader", "--enable-unsafe-swiftshader"),
    "--autoplay-policy=no-user-gesture-required",
]


def find_chromium() -> str | None:
    """The program that AVPREP_TEST_CHROMIUM names, or else an installed one."""
    named = os.environ.get("AVPREP_TEST_CHROMIUM")
    return named or next((path for name in NAMES if (path := shutil.which(name))), None)


@contextmanager
def open_browser() -> Iterator[Browser]:
    """A browser with an empty profile. Skips the test where there is none."""
    program = find_chromium()
    if program is None:
        pytest.skip(f"there is no {', '.join(NAMES)}; AVPREP_TEST_CHROMIUM can name another")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=OPTIONS)
        yield browser
        browser.close()
