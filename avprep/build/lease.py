"""A lock on a folder without file locks: a file in the folder that its holder renews.

To take the lock, a build writes a file of its own and then lists the folder. If two builds do so at
the same time, both see the other's file, delete their own, and try again after different delays.
The store must only guarantee that a listing shows what was written before. Clocks are not
compared: a build that finds a lock watches whether it is renewed. If it is, its holder is running;
if it is not renewed for `LIFE_S`, the holder is dead and its file is deleted.

Limits: after a kill, the next build waits for `LIFE_S`. A holder that was disconnected or suspended
for longer stops as soon as it finds its file gone, but an upload in progress may still arrive
afterwards. This is harmless: builds of the same recordings and options write the same bytes, and
other builds are refused while the state of the unfinished build lies in the folder.
"""

from __future__ import annotations

import os
import random
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from avprep.errors import UserError
from shards.errors import show
from shards.files import dump_json
from shards.remote import RemoteFolder

LOCK_NAME = ".build.lock"
RENEW_S = 10.0
LIFE_S = 60.0
_POLL_S = 1.0


@contextmanager
def lease(
    folder: RemoteFolder, kind: str, excludes: tuple[str, ...], where: str, wait: bool = False
) -> Iterator[Callable[[], None]]:
    """Hold a lock of this ``kind`` (such as ``end``), which excludes other locks whose kind begins
    with one of ``excludes``.

    If such a lock is held, wait for it, or without ``wait`` raise UserError as soon as its holder
    is seen to be running. Yields a function that raises UserError if the lock has been lost since.
    """
    name = f"{LOCK_NAME}.{kind}.{secrets.token_hex(8)}"
    done, lost = threading.Event(), threading.Event()
    prefixes = tuple(f"{LOCK_NAME}.{other}" for other in excludes)
    renewing = threading.Thread(target=_renew, args=(folder, name, done, lost), daemon=True)

    def check() -> None:
        if lost.is_set():
            raise UserError(
                f"this build was disconnected from {folder} and another one is running {where}; "
                "finished shards are kept"
            )

    try:
        _take(folder, name, prefixes, where, wait)
        renewing.start()
        yield check
    finally:
        done.set()
        if renewing.is_alive():
            renewing.join()
        with suppress(OSError):
            folder.delete(name)


def _take(
    folder: RemoteFolder, name: str, excluded: tuple[str, ...], where: str, wait: bool
) -> None:
    seen: dict[str, tuple[bytes, float]] = {}
    while True:
        others = _locks(folder, excluded)
        if not others:
            _write(folder, name)
            others = _locks(folder, excluded, own=name)
            if not others:
                return
            folder.delete(name)
        for other, content in others.items():
            if other not in seen:
                seen[other] = content, time.monotonic()
                if not wait:
                    show(f"check: {other} lies in {folder}; is that build running?", err=True)
            before, since = seen[other]
            if before == content:
                if time.monotonic() - since > LIFE_S:
                    folder.delete(other)
            elif wait:
                seen[other] = content, time.monotonic()
            else:
                raise UserError(
                    f"another build is running {where}; wait for it, or choose another --out"
                )
        time.sleep(random.uniform(0.5, 1.5) * min(_POLL_S, RENEW_S))


def _locks(folder: RemoteFolder, excluded: tuple[str, ...], own: str = "") -> dict[str, bytes]:
    """The excluded locks that others hold, and what was last written into them."""
    locks = {}
    for name in folder.files():
        if name.startswith(excluded) and name != own:
            with suppress(FileNotFoundError):  # released since the listing
                locks[name] = folder.read(name)
    return locks


def _write(folder: RemoteFolder, name: str) -> None:
    # The time is for people who look at the file; the token makes each renewal differ.
    holder = {"host": socket.gethostname(), "process": os.getpid(), "time": time.time()}
    folder.write(name, dump_json({**holder, "token": secrets.token_hex(8)}))


def _renew(folder: RemoteFolder, name: str, done: threading.Event, lost: threading.Event) -> None:
    while not done.wait(RENEW_S):
        try:
            folder.read(name)
            _write(folder, name)
        except FileNotFoundError:
            lost.set()
            return
        except OSError:  # the store does not answer; whether the lock is lost is seen later
            continue
