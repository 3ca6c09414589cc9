"""`python -m cli` is `dualface`, for machines where the package is not installed."""

from cli.main import main

main(prog_name="dualface")
