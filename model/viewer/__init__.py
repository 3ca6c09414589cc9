"""The inspector in the browser: a page about shards, a run, or reconstructed faces, served to this machine alone."""

from model.viewer.server import ViewServer
from model.viewer.views import open_view

__all__ = ["ViewServer", "open_view"]
