"""Frozen predictions: written to a file before anything that they are about is measured, and never changed."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ...compressors.errors import InputError
from ...sim.profile import Profile
from ..measurement.records import AnyRecord, StepRecord
from .predict import Predicted


class Frozen(NamedTuple):
    """Predictions by the key of the record that they are about.

    Attributes
    ----------
    predictions : dict of str to Predicted
    digest : str
        SHA-256 of the profiles that they rest on.
    """

    predictions: dict[str, Predicted]
    digest: str

    @classmethod
    def of(cls, predictions: dict[str, Predicted], profiles: Iterable[Profile]) -> "Frozen":
        """Return predictions that rest on profiles."""
        whole = hashlib.sha256()
        for profile in profiles:
            whole.update(profile.to_toml().encode())
        return cls(predictions, whole.hexdigest())

    def freeze(self, path: Path) -> None:
        """Write the predictions, whole at once.

        Raises
        ------
        InputError
            If the file holds others: predictions are not changed once they can be held against measurements.
        """
        text = json.dumps(
            {"digest": self.digest, "predictions": {key: one._asdict() for key, one in self.predictions.items()}},
            indent=1,
            sort_keys=True,
        )
        if path.exists():
            if path.read_text(encoding="utf-8") != text:
                raise InputError(f"{path}: holds other predictions, which are not changed; give another folder")
            return
        new = path.with_suffix(".new")
        new.write_text(text, encoding="utf-8")
        new.rename(path)


def read_frozen(path: Path) -> Frozen:
    """Return what :meth:`Frozen.freeze` wrote."""
    data = json.loads(path.read_text(encoding="utf-8"))
    found = {
        key: Predicted(one["step_s"], one["phases"], one["sent_bytes"], tuple(one["extrapolated"]))
        for key, one in data["predictions"].items()
    }
    return Frozen(found, data["digest"])


def check_apart(calibration: Sequence[AnyRecord], predicted: Mapping[str, object]) -> None:
    """Refuse to predict a configuration that the calibration has seen.

    Raises
    ------
    InputError
        One line that names it.
    """
    for record in calibration:
        if isinstance(record, StepRecord) and record.key in predicted:
            raise InputError(
                f"{record.scheme} on {record.task} is in the calibration's records and in the grid: a configuration "
                "is calibrated on or predicted, not both"
            )
