"""Variants: named sets of values for the keys of an option that are not set otherwise."""

import re

import pytest
from helpers import CONF, read_record

from mtlrun.config.compose import compose
from mtlrun.config.instantiate import build
from mtlrun.config.options import shipped
from mtlrun.errors import ConfigError
from mtlrun.records.identity import config_hash

#: {method: {variant: what it changes}}; the sources are in the docstrings of the methods.
EXPECTED = {
    "aligned_mtl": {"official": {"reduction": "sum"}},
    "balancer": {"official": {"norm_of": "sample"}},
    "db_mtl": {"official": {"beta": 0.9}},
    "excess_mtl": {"official": {"eta": 0.01, "warmup_epochs": 0, "reduction": "sum", "head_loss": "weighted"}},
    "famo": {"official": {"max_norm": 1.0}},
    "graddrop": {
        "paper": {"grad_wrt": "representation", "activation_signs": True},
        "official": {"grad_wrt": "representation", "activation_signs": True, "keep_norm": True},
    },
    "gradnorm": {"paper": {"grad_wrt": "last_layer"}},
    "imtl": {"paper": {"grad_wrt": "representation"}},
    "imtl_g": {"paper": {"grad_wrt": "representation"}},
    "lbtw": {"official": {"normalize": True}},
    "moco": {"official": {"normalize": True, "projection": "softmax", "updated_weights": True}},
    "sdmgrad": {"official": {"reduction": "sum", "max_norm": 1.0}},
}


def node_of(*words):
    return compose(list(words))["weighting"]


def test_a_variant_changes_what_it_says_and_the_result_can_be_built():
    for method, variants in EXPECTED.items():
        default = node_of(f"weighting={method}")
        assert not {"variant", "variants"} & set(default)
        for variant, changes in variants.items():
            found = node_of(f"weighting={method}", f"weighting.variant={variant}")
            assert found == default | changes
            assert all(default[key] != value for key, value in changes.items())
            build(found, "weighting").setup(2)


def test_the_methods_with_variants_are_these():
    texts = {name: (CONF / "weighting" / f"{name}.yaml").read_text() for name in shipped("weighting")}
    assert {name for name, text in texts.items() if re.search("^variants:", text, re.MULTILINE)} == set(EXPECTED) - {
        "imtl"
    }


def test_a_key_on_the_command_line_wins_over_the_variant():
    node = node_of("weighting=moco", "weighting.variant=official", "weighting.normalize=false")
    assert (node["normalize"], node["projection"]) == (False, "softmax")
    node = node_of("weighting=aligned_mtl", "weighting.variant=official", "weighting.reduction=mean")
    assert node == node_of("weighting=aligned_mtl")


def test_a_run_is_the_same_however_its_values_were_asked_for():
    named = compose(["weighting=lbtw", "weighting.variant=official"])
    spelled = compose(["weighting=lbtw", "weighting.normalize=true"])
    assert named == spelled
    assert config_hash(named) != config_hash(compose(["weighting=lbtw"]))


def test_the_weighting_of_the_losses_has_its_variant_too():
    words = ["weighting=moco", "weighting/losses=lbtw", "weighting.losses.variant=official"]
    assert node_of(*words)["losses"] == node_of("weighting=lbtw", "weighting.variant=official")
    assert node_of(*words)["normalize"] is False


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["weighting=moco", "weighting.variant=offical"],
         "weighting.variant=offical: unknown variant; did you mean 'official'? the variants are: default, official"),
        (["weighting=moco", "weighting.variant=null"], "weighting.variant=None: unknown variant; the variants are"),
        (["weighting=pcgrad", "weighting/losses=lbtw", "weighting.losses.variant=paper"],
         "weighting.losses.variant=paper: unknown variant; the variants are: default, official"),
    ],
)  # fmt: skip
def test_an_unknown_variant_is_one_line(words, message):
    with pytest.raises(ConfigError) as error:
        compose(words)
    (problem,) = error.value.problems
    assert problem.startswith(message)


def test_a_method_without_variants_refuses_the_key(mtlrun):
    code, _, err = mtlrun("weighting=mgda", "weighting.variant=official")
    assert code == 2
    assert "weighting.variant" in err


def test_a_run_records_the_values(quick):
    record = read_record(quick("weighting=graddrop", "weighting.variant=paper"))
    assert record["config"]["weighting"]["activation_signs"] is True
    assert "variant" not in record["config"]["weighting"]
