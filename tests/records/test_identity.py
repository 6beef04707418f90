"""The identity of a run: its name, and the hash of all that can change its result."""

import math

import pytest

from mtlrun.config.compose import compose
from mtlrun.records.identity import config_hash, run_id


def test_a_run_id_begins_with_what_is_swept_and_ends_with_a_hash_of_the_config():
    config = compose(["weighting=mgda", "seed=4"])
    assert run_id(config) == f"hard-mgda-lr0.001-s4-multidigits-{config_hash(config)}"
    assert len(config_hash(config)) == 8
    for lr, word in {
        3e-5: "lr0.00003",
        0.0123456: "lr0.0123",
        1: "lr1",
        1e-9: "lr1e_09",
        math.inf: "s4",
        10**400: "s4",
    }.items():
        assert run_id(config | {"optimizer": {"lr": lr}}).split("-")[2] == word
    assert run_id(config | {"optimizer": {"_target_": "mine.WithoutLr"}}).startswith("hard-mgda-s4-multidigits-")
    assert run_id(config | {"dataset": {"fold": 2}}).startswith("hard-mgda-lr0.001-s4-f2-multidigits-")


@pytest.mark.parametrize("override", ["optimizer.lr=2e-3", "seed=1", "trainer.log_every=7", "dataset.shift=3"])
def test_settings_that_may_change_a_result_change_the_identity(override):
    assert config_hash(compose([override])) != config_hash(compose())


@pytest.mark.parametrize(
    "override",
    [
        "runtime.root=x",
        "runtime.num_workers=2",
        "runtime.quiet=true",
        "trainer.baselines=false",
        "dataset.cache=memory",
        "dataset.cache=device",
    ],
)
def test_settings_that_cannot_change_a_result_do_not_change_the_identity(override):
    assert config_hash(compose([override])) == config_hash(compose())


def test_reading_files_whenever_they_are_needed_is_part_of_the_identity():
    hashes = {cache: config_hash(compose(["dataset=celeba", f"dataset.cache={cache}"])) for cache in ("auto", "none")}
    assert hashes["auto"] != hashes["none"]


def test_how_a_value_was_set_does_not_change_the_identity():
    assert config_hash(compose(["tasks.left.lr=0.001"])) == config_hash(compose())
    assert config_hash(compose(["experiment=digits_gradnorm"])) == config_hash(
        compose(["weighting=gradnorm", "weighting.grad_wrt=last_layer"])
    )
