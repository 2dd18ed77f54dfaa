"""The store: what was trained, or played event by event, once is not computed again.

An entry is compressed JSON with its own check sum, named by a fingerprint of all that it depends on. It is written
under a temporary name and renamed, so that readers and other writers never see half of one. Nothing in it is pickled.
"""

import gzip
import json
import os
import tempfile
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from ...compressors.errors import InputError
from .trajectory import Trajectory, check_sum

T = TypeVar("T")


class StoreWarning(UserWarning):
    """A stored result was damaged and is computed anew, or one could not be stored."""


class StoreError(InputError):
    """A store that cannot be read or written."""


class Store:
    """A folder of results, of which most are trajectories.

    Parameters
    ----------
    folder : Path
        Made if it is not there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def prepare(self) -> None:
        """Make sure before a training that its result can be stored.

        Raises
        ------
        StoreError
            If the folder cannot be made or written to.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder):
                pass
        except OSError as error:
            raise StoreError(f"store {self.folder}: cannot be written to: {error.strerror or error}") from error

    def path(self, fingerprint: str) -> Path:
        """Return where a trajectory is or would be."""
        return self.folder / fingerprint[:2] / f"{fingerprint}.json.gz"

    def get(self, fingerprint: str) -> Trajectory | None:
        """Return a trajectory, or None if it is not there; warn and return None if it is damaged."""
        return self._read(fingerprint, Trajectory.from_json)

    def put(self, fingerprint: str, trajectory: Trajectory) -> None:
        """Store a trajectory, or warn that it cannot be; of concurrent writers the last wins, with equal content."""
        self.put_text(fingerprint, trajectory.to_json())

    def get_text(self, fingerprint: str) -> str | None:
        """Return a text, as :meth:`get` does a trajectory."""
        return self._read(fingerprint, str)

    def put_text(self, fingerprint: str, text: str) -> None:
        """Store a text, as :meth:`put` does a trajectory."""
        try:
            self._write(fingerprint, text)
        except OSError as error:
            reason = error.strerror or error
            warnings.warn(StoreWarning(f"store {self.folder}: a result is not stored: {reason}"), stacklevel=3)

    def _read(self, fingerprint: str, decode: Callable[[str], T]) -> T | None:
        path = self.path(fingerprint)
        try:
            envelope = json.loads(gzip.decompress(path.read_bytes()))
            if check_sum(envelope["content"]) == envelope["sha256"]:
                return decode(envelope["content"])
            reason = "its check sum does not match"
        except FileNotFoundError:
            return None
        except (gzip.BadGzipFile, EOFError, ValueError, KeyError, TypeError, AttributeError, zlib.error) as error:
            reason = str(error) or type(error).__name__
        except OSError as error:
            raise StoreError(f"store: {path} cannot be read: {error.strerror or error}") from error
        warnings.warn(StoreWarning(f"{path} is damaged ({reason}); computing it anew"), stacklevel=3)
        return None

    def _write(self, fingerprint: str, text: str) -> None:
        data = json.dumps({"sha256": check_sum(text), "content": text}).encode()
        path = self.path(fingerprint)
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".part")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(gzip.compress(data, mtime=0))
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


def default_folder() -> Path:
    """Return ``$GRADWIRE_STORE``, or ``gradwire/trajectories`` in the user's cache folder."""
    if own := os.environ.get("GRADWIRE_STORE"):
        return Path(own)
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "gradwire" / "trajectories"
