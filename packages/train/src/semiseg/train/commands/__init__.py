"""The command line: one thin module per command group. Nothing heavy is imported before a command runs."""
