"""The texts of `mtlrun --help` and `--cfg job`, where Hydra's are late or do not have all.

That of `--help` is the shipped template, filled in without Hydra's listing of all groups.

Hydra lists its groups and the program's whatever the template asks for, and copies all registered configs for each
folder; that takes longer than everything else before the text is on the screen.
"""

from collections.abc import Sequence
from string import Template

from mtlrun.errors import ConfigError


def help_text(overrides: Sequence[str], config_dir: str | None, *, resolve: bool) -> str | None:
    """Return the text, or None if only Hydra can make it: a template of the user's that lists the groups.

    Args:
        overrides: the command line without its options.
        config_dir: a folder of the user's own YAML, as given by `--config-dir`.
        resolve: show values in place of interpolations.

    Raises:
        HydraException, OmegaConfBaseException: the config cannot be composed.
    """
    from omegaconf import OmegaConf

    from mtlrun.config.compose import compose_with_hydra, without_hydra

    cfg = compose_with_hydra(overrides, config_dir)
    template = Template(cfg.hydra.help.template)
    if set(template.get_identifiers()) - {"CONFIG"}:
        return None
    return template.substitute(CONFIG=OmegaConf.to_yaml(without_hydra(cfg), resolve=resolve))


def completed_config(overrides: Sequence[str], config_dir: str | None, *, resolve: bool) -> str | None:
    """Return the composed config with the tasks that `dataset.predict` finds; None if it asks for none.

    Args:
        overrides, config_dir, resolve: see `help_text`.

    Raises:
        HydraException, OmegaConfBaseException: the config cannot be composed.
        ConfigError, DataError: tasks cannot be found, or an option has no such variant.
    """
    from omegaconf import OmegaConf

    from mtlrun.config.completion import complete
    from mtlrun.config.compose import check_deleted, compose_with_hydra, without_hydra
    from mtlrun.config.variants import check_variants

    cfg = without_hydra(compose_with_hydra(overrides, config_dir))
    if problems := check_variants(cfg):
        raise ConfigError(problems)
    if OmegaConf.select(cfg, "dataset.predict") is None:
        return None
    completed = complete(cfg, named_by_user=False)
    check_deleted(completed.found, overrides)
    return OmegaConf.to_yaml(completed.cfg, resolve=resolve)
