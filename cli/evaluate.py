"""`dualface evaluate`: the paper's measurements of trained networks, each by its protocol."""

import click


@click.group()
def evaluate():
    """Measure trained networks by the paper's protocols (Sec. IV-C to IV-E)."""
