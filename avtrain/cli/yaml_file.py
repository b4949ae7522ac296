"""YAML files that users write: plain data, small, and without references."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, TypeVar

from shards.files import parse_value, read_regular

_LARGEST_FILE = 100_000
_EXPONENT = re.compile(r"[-+]?[0-9]+[eE][-+]?[0-9]+")
_Record = TypeVar("_Record")


def read_yaml(path: Path, kind: type[_Record]) -> _Record:
    """The content of a YAML file (or of JSON, which YAML includes) as ``kind``, see `parse_json`.

    Raises TrainingError: one sentence that names the file.
    """
    import yaml

    from avtrain.errors import TrainingError

    class PlainLoader(yaml.SafeLoader):
        """Refuses references, with which a small file can describe a huge value."""

        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                raise yaml.YAMLError("it refers to another value (*), which is not read here")
            return super().compose_node(parent, index)

    # In YAML 1.1, 1e-5 is a word: it needs a dot there, and in 1.2 and JSON none.
    PlainLoader.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, list("-+0123456789"))
    try:
        value = yaml.load(read_regular(path, _LARGEST_FILE), PlainLoader)
        return parse_value({} if value is None else value, kind)
    except RecursionError:
        raise TrainingError(f"{path} is nested too deeply") from None
    except OSError as error:
        raise TrainingError(f"{path} cannot be read: {error.strerror}") from None
    except yaml.YAMLError as error:
        raise TrainingError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    except ValueError as error:
        raise TrainingError(f"{path}: {error}") from None
