"""The command line: arguments in, an exit code out.

One file per subcommand, with `main(arguments) -> exit code`; `main.py` dispatches and hands everything else to Hydra.
Nothing here trains, and nothing here imports torch when it is itself imported, so that `--help` answers at once.
"""
