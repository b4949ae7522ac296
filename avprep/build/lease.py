"""A lock on a folder that knows no file locks: a file in it that its holder renews.

To take the lock is to write a file of one's own and then find no other's beside it; two who do so
at once both see each other, withdraw, and try again after different times. This needs no more of a
store than that a listing shows what was written before. Nobody's clock counts: who finds a lock
watches whether it is renewed. If it is, the holder is at work; if it is not for `LIFE_S`, the
holder is dead and its file is deleted.

Its limits: after a kill the next build waits for `LIFE_S`. A holder that was cut off or stood still
for longer stops as soon as it finds its file gone, but what it was just uploading may still arrive
afterwards. Builds of the same recordings and options write the same bytes, so that this does no
harm; other ones are refused for as long as the unfinished build's state lies there.
"""

from __future__ import annotations

import os
import random
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from tqdm import tqdm

from avprep.errors import UserError
from shards.files import dump_json
from shards.remote import RemoteFolder

LOCK_NAME = ".build.lock"
RENEW_S = 10.0
LIFE_S = 60.0
_POLL_S = 1.0


@contextmanager
def leased(
    folder: RemoteFolder, kind: str, against: tuple[str, ...], what: str, wait: bool = False
) -> Iterator[Callable[[], None]]:
    """Hold a lock of a ``kind`` (``end``) unless others hold one whose kind begins with one of
    ``against``; else wait for them, or raise UserError as soon as they are seen to be at work.

    Gives a function that raises UserError if the lock was lost meanwhile.
    """
    name = f"{LOCK_NAME}.{kind}.{secrets.token_hex(8)}"
    done, lost = threading.Event(), threading.Event()
    prefixes = tuple(f"{LOCK_NAME}.{other}" for other in against)
    renewing = threading.Thread(target=_renew, args=(folder, name, done, lost), daemon=True)

    def check() -> None:
        if lost.is_set():
            raise UserError(
                f"this build was cut off from {folder} and another one is at work {what}; it keeps "
                "the shards that are finished"
            )

    try:
        _take(folder, name, prefixes, what, wait)
        renewing.start()
        yield check
    finally:
        done.set()
        if renewing.is_alive():
            renewing.join()
        with suppress(OSError):
            folder.delete(name)


def _take(folder: RemoteFolder, name: str, against: tuple[str, ...], what: str, wait: bool) -> None:
    seen: dict[str, tuple[bytes, float]] = {}
    while True:
        others = _locks(folder, against)
        if not others:
            _write(folder, name)
            others = _locks(folder, against, but=name)
            if not others:
                return
            folder.delete(name)
        for other, content in others.items():
            if other not in seen:
                seen[other] = content, time.monotonic()
                if not wait:
                    tqdm.write(f"check: {other} lies in {folder}; is its build alive?", sys.stderr)
            before, since = seen[other]
            if before == content:
                if time.monotonic() - since > LIFE_S:
                    folder.delete(other)
            elif wait:
                seen[other] = content, time.monotonic()
            else:
                raise UserError(
                    f"another build is at work {what}; wait for it, or choose another --out"
                )
        time.sleep(random.uniform(0.5, 1.5) * min(_POLL_S, RENEW_S))


def _locks(folder: RemoteFolder, against: tuple[str, ...], but: str = "") -> dict[str, bytes]:
    """The other builds' locks and what was last written into them."""
    locks = {}
    for name in folder.files():
        if name.startswith(against) and name != but:
            with suppress(FileNotFoundError):  # given back meanwhile
                locks[name] = folder.read(name)
    return locks


def _write(folder: RemoteFolder, name: str) -> None:
    # The time is for people who look; the token makes each renewal differ.
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
        except OSError:  # the store does not answer now; whether that cost the lock shows later
            continue
