"""The config of a run as YAML: in its folder, and in its file for TensorBoard."""

from collections.abc import Mapping
from typing import Any

import yaml

# That of libyaml, where there is one, takes a tenth of the time.
_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def as_yaml(config: Mapping[str, Any]) -> str:
    """Return a config as YAML, with its keys in their order."""
    text: str = yaml.dump(dict(config), Dumper=_DUMPER, sort_keys=False)
    return text
