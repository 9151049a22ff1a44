"""The `semiseg` command, which collects the commands of installed packages through entry points. Needs no torch."""
