"""`dualface view`: look at shards, a run or reconstructed faces in the browser."""

from pathlib import Path

import click

from cli.command import FACE_MODEL, Command
from cli.errors import one_sentence


@click.command(cls=Command)
@click.argument("path", metavar="SHARDS|RUN|OUT", type=click.Path(exists=True, path_type=Path))
@click.option("--port", type=click.IntRange(0, 65535), default=8470, show_default=True,
              help="Port on 127.0.0.1; 0 is any that is free.")
@click.option("--open/--no-open", "opens", default=True, show_default=True, help="Open the page in the browser.")
@click.option("--face-model", type=FACE_MODEL, help="Model file of shards or faces of another model than 'open'.")
def view(path: Path, port: int, opens: bool, face_model: str | None):
    """Look at what `build`, `train` or `reconstruct` wrote, in the browser.

    Of SHARDS: samples, their photos, maps and textures, and the face in 3D with sliders for identity and expression.
    Of a RUN: its curves and sample sheets, also while it goes on. Of OUT: the faces, their meshes and pictures. The
    page is served to this machine alone, nothing is written, and nothing is loaded from elsewhere. Ctrl-C ends it.

    \b
    Example: dualface view shards --port 8470
    """
    import webbrowser

    from model.viewer import ViewServer, open_view

    with one_sentence():
        found = open_view(path, face_model)
        try:
            server = ViewServer(found, port)
        except OSError as error:
            raise ValueError(f"port {port} must be free, but: {error.strerror}; choose another with --port") from error
    with server:
        click.echo(f"{path} is at {server.url} (Ctrl-C ends)")
        if opens:
            webbrowser.open(server.url)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            click.echo("ended")
