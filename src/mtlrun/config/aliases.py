"""Aliases: the names that papers and other programs use for shipped options."""

import re
from collections.abc import Sequence

ALIASES = {
    "weighting": {
        "EW": "equal",
        "LS": "equal",
        "UW": "uncertainty",
        "SI": "scale_invariant",
        "Nash_MTL": "nash_mtl",
        "nashmtl": "nash_mtl",
        "Aligned_MTL": "aligned_mtl",
        "IMTLG": "imtl_g",
        "IMTL_G": "imtl_g",
        "IMTLL": "imtl_l",
        "RLW": "rlw",
        "GLS": "gls",
        "DWA": "dwa",
        "MGDA": "mgda",
        "GradNorm": "gradnorm",
        "PCGrad": "pcgrad",
        "GradDrop": "graddrop",
        "GradVac": "gradvac",
        "CAGrad": "cagrad",
        "FAMO": "famo",
        "DB_MTL": "db_mtl",
        "MoCo": "moco",
        "STCH": "stch",
        "IMTL_L": "imtl_l",
        "IMTL": "imtl",
        "LBTW": "lbtw",
        "DTP": "dtp",
        "UW-SO": "uncertainty_so",
        "UW_SO": "uncertainty_so",
        "GO4Align": "go4align",
        "IGB": "igb",
        "CoV": "cov_weighting",
        "FairGrad": "fairgrad",
        "UPGrad": "upgrad",
        "DualProj": "dualproj",
        "ConFIG": "config",
        "ExcessMTL": "excess_mtl",
        "MGDA_UB": "mgda_ub",
        "MoDo": "modo",
        "SDMGrad": "sdmgrad",
        "AutoLambda": "auto_lambda",
        "RotoGrad": "rotograd",
        "Balancer": "balancer",
        "MetaBalance": "metabalance",
        "GCS": "gcs",
        "Bloop": "bloop",
    },
    "model": {
        "HPS": "hard",
        "STL": "single",
        "Cross_stitch": "cross_stitch",
        "Sluice": "sluice",
        "NDDR": "nddr",
        "NDDR-CNN": "nddr",
        "MTAN": "mtan",
        "MMoE": "mmoe",
        "CGC": "cgc",
        "PLE": "ple",
        "AdaTT": "adatt",
        "DSelect_k": "dselect_k",
        "DSelect-k": "dselect_k",
        "LTB": "ltb",
        "PAD-Net": "pad_net",
        "PADNet": "pad_net",
        "MTI-Net": "mti_net",
        "MTINet": "mti_net",
        "LoRA": "lora",
    },
}


#: Key on the command line -> Hydra's name for it: an option of one group, placed elsewhere in the config.
PLACED = {"match_parameters": "model@match_parameters"}

#: Keys below these need no `+`: mappings of a dataset that hold a key for each task or name that the user chooses, and
#: the keys of a task, which `dataset.predict` may add only when the config is complete.
OPEN = re.compile(r"dataset\.(targets|classes|weight_column)\.|tasks\.[^.@=]+\.")


def canonical(overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """Replace aliases in `group=name` and `group=name,name`, and let nobody think about `+` and `++`.

    Returns:
        The overrides, and a line for each replaced alias: `weighting=EW is weighting=equal`.
    """
    replaced, notes = [], []
    for override in overrides:
        group, separator, value = override.partition("=")
        known = ALIASES.get("model" if group in PLACED else group, {})
        if separator and any(name in known for name in value.split(",")):
            notes += [f"{group}={name} is {group}={known[name]}" for name in value.split(",") if name in known]
            value = ",".join(known.get(name, name) for name in value.split(","))
        replaced.append(f"{_prefix(group)}{PLACED.get(group, group)}{separator}{value}")
    return replaced, notes


def _prefix(key: str) -> str:
    """Return what is put before a key so that it is set whether or not it exists.

    Hydra refuses `+` before a key that exists. An unknown key is refused later, by the class that it is for.
    """
    if OPEN.match(key):
        return "++"
    return "+" if key.startswith("+") and not key.startswith("++") and "." in key and "@" not in key else ""
