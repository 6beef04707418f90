"""The shipped configs; a package so that Hydra finds them wherever mtlrun is installed."""
