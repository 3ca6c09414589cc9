"""`dualface completion`: what makes the Tab key complete commands and options."""

import click

from cli.command import Command


@click.command(cls=Command)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str):
    """Print the script that lets SHELL complete `dualface`, its commands, options and files.

    \b
    Example: dualface completion bash > ~/.dualface-complete; echo '. ~/.dualface-complete' >> ~/.bashrc
    For zsh likewise with ~/.zshrc; for fish: dualface completion fish > ~/.config/fish/completions/dualface.fish
    """
    from click.shell_completion import get_completion_class

    from cli.main import main

    script = get_completion_class(shell)
    assert script is not None  # click has all three
    click.echo(script(main, {}, "dualface", "_DUALFACE_COMPLETE").source())
