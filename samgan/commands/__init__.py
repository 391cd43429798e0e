"""The command line: one file per group of commands, each with its arguments and what it calls."""
