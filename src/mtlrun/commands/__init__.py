"""Subcommands: one file each, with main(arguments) -> exit code."""
