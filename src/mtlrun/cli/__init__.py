"""The command line: arguments in, an exit code out.

One file per subcommand, with `main(arguments) -> exit code`; `main.py` dispatches and hands everything else to Hydra.
Nothing here trains, and importing these modules does not import torch, so that `--help` answers at once.
"""
