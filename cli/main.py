"""The command group; subcommands are imported only when called, so that `--help` answers at once."""

import importlib
from difflib import get_close_matches
from typing import Any

import click

from cli.command import Group

COMMANDS = {
    "face-model": ("cli.face_model", "face_model", "Convert and describe morphable face models."),
    "synth": ("cli.synth", "synth", "Render datasets with exact ground truth."),
    "build": ("cli.build", "build", "Build training datasets (HDF5 shards)."),
    "inspect": ("cli.shards", "inspect", "Draw samples of a dataset and print its statistics."),
    "verify": ("cli.shards", "verify", "Reread every sample of a dataset."),
    "view": ("cli.view", "view", "Look at shards, a run or reconstructed faces in the browser."),
    "train": ("cli.train", "train", "Train a network from shards."),
    "evaluate": ("cli.evaluate", "evaluate", "Measure trained networks by the paper's protocols."),
    "figure": ("cli.figure", "figure", "Draw the paper's figures from trained networks."),
    "annotate": ("cli.annotate", "annotate", "Find landmarks in own photos, which become training data."),
    "export": ("cli.export", "export", "Write shards and networks for other programs."),
    "reconstruct": ("cli.reconstruct", "reconstruct", "Reconstruct 3D faces from photos."),
    "completion": ("cli.completion", "completion", "Print the script that completes commands in a shell."),
}
"""Name -> module, function, one line for the list of commands."""


class LazyGroup(Group):
    """A group whose commands live in modules that are imported on use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order in which data flows."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Import one command."""
        if name not in COMMANDS:
            return None
        module, function, _ = COMMANDS[name]
        return getattr(importlib.import_module(module), function)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that the first word names, or say which one may be meant."""
        known = self.list_commands(ctx)
        near = get_close_matches(args[0], known, 1)
        if near and args[0] not in known:
            ctx.fail(f"No such command {args[0]!r}. Did you mean {near[0]!r}?")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter):
        """Write the list of commands without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, _, line) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; one that Ctrl-C stopped has the exit code that shells give it, and no traceback."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("\nstopped by Ctrl-C", err=True)
            ctx.exit(130)


@click.command("dualface", cls=LazyGroup, context_settings={"max_content_width": 110})
@click.version_option(package_name="dualface", prog_name="dualface")
def main():
    """Face reconstruction datasets and a dual-stream network, from 300W-LP to a mesh.

    \b
    dualface synth 300wlp faces --count 200
    dualface build asmd faces shards --face-model open
    dualface inspect shards -o sheet.png
    dualface train geometry shards -o run
    dualface reconstruct photo.jpg --checkpoint run -o out

    Exit codes: 0 all went well; 1 something is wrong with the data, or could not be done for part of it; 2 the command
    was not typed right; 130 stopped by Ctrl-C; 143 ended by SIGTERM. Errors go to stderr, results to stdout.
    """
