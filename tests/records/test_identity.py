"""The identity of a run: its name, and the hash of all that can change its result."""

import pytest

from mtlrun.config.compose import compose
from mtlrun.records.identity import config_hash, run_id


def test_a_run_id_holds_the_options_and_a_hash_of_the_config():
    config = compose(["weighting=mgda", "seed=4"])
    assert run_id(config) == f"multidigits-hard-mgda-s4-{config_hash(config)}"
    assert len(config_hash(config)) == 8


@pytest.mark.parametrize("override", ["optimizer.lr=2e-3", "seed=1", "trainer.log_every=7", "dataset.shift=3"])
def test_settings_that_may_change_a_result_change_the_identity(override):
    assert config_hash(compose([override])) != config_hash(compose())


@pytest.mark.parametrize(
    "override", ["runtime.root=x", "runtime.num_workers=2", "runtime.quiet=true", "trainer.baselines=false"]
)
def test_settings_that_cannot_change_a_result_do_not_change_the_identity(override):
    assert config_hash(compose([override])) == config_hash(compose())


def test_how_a_value_was_set_does_not_change_the_identity():
    assert config_hash(compose(["tasks.left.lr=0.001"])) == config_hash(compose())
    assert config_hash(compose(["experiment=digits_gradnorm"])) == config_hash(
        compose(["weighting=gradnorm", "weighting.grad_wrt=last_layer"])
    )
