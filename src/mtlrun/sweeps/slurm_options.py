"""The options of Slurm jobs, and what is refused of them before anything is submitted."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mtlrun.errors import ConfigError

_CLUSTERS = ("slurm", "local")


@dataclass(frozen=True)
class SlurmOptions:
    """What conf/hydra/launcher/mtlrun.yaml has below `slurm`, where the keys are explained."""

    partition: str | None = None
    cluster: str = "slurm"
    runs_per_job: int = 1
    minutes: int = 120
    gpus: int | None = None
    cpus: int | None = None
    mem_gb: float | None = None
    array_size: int = 1000
    options: Mapping[str, Any] = field(default_factory=dict)

    def check(self, runs_per_gpu: int) -> None:
        """Refuse what cannot work.

        Raises:
            ConfigError: with what is wrong.
        """
        key = "hydra.launcher.slurm"
        if self.cluster not in _CLUSTERS:
            raise ConfigError(f"{key}.cluster={self.cluster}: must be one of {', '.join(_CLUSTERS)}")
        for name, least in {
            "runs_per_job": 1,
            "minutes": 1,
            "array_size": 1,
            "gpus": 0,
            "cpus": 1,
            "mem_gb": 0,
        }.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"{key}.{name}={value}: must be at least {least}")
        if self.gpus == 0 and runs_per_gpu != 1:
            raise ConfigError(f"hydra.launcher.runs_per_gpu={runs_per_gpu}: there is no GPU, by {key}.gpus=0")
        try:
            import submitit  # noqa: F401
        except ModuleNotFoundError:
            raise ConfigError('hydra.launcher.executor=slurm needs submitit: pip install "mtlrun[slurm]"') from None
        if self.cluster == "slurm":
            if self.partition is None:
                raise ConfigError(
                    f"{key}.partition is missing: the name of the partition to use; `sinfo -s` lists them"
                )
            missing = [program for program in ("sbatch", "srun", "sacct", "scancel") if shutil.which(program) is None]
            if missing:
                raise ConfigError(
                    f"hydra.launcher.executor=slurm: {', '.join(missing)} not found; "
                    "start the sweep on a machine of the cluster"
                )
