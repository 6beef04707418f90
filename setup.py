"""Which folders are packages: all below src, and conf/, shipped as mtlrun.conf; the rest is in pyproject.toml."""

from setuptools import find_packages, setup

setup(packages=[*find_packages("src"), "mtlrun.conf"], package_dir={"": "src", "mtlrun.conf": "conf"})
