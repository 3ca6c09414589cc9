"""The `dualface` command: click parses and checks, one library function does the work."""
