"""What a path is: shards, a run, or reconstructed faces."""

from __future__ import annotations

from pathlib import Path

from model.run_folder import LOG_NAME
from model.viewer.answers import View
from model.viewer.reconstructed import ReconstructedView, find_faces
from model.viewer.run import RunView
from model.viewer.shards import ShardsView


def open_view(path: Path, face_model: str | None = None) -> View:
    """Open what a page is to show.

    Parameters
    ----------
    path : Path
        Shards (their folder, or one), the folder of a run, or the folder that `reconstruct` wrote.
    face_model : str | None
        File of the face model of shards or faces; None is the open model.

    Returns
    -------
    View
        For `ViewServer`.

    Raises
    ------
    ValueError
        If the path is none of these, or shards cannot be read.
    """
    path = Path(path)
    if path.is_file() or any(path.glob("*.h5")):
        return ShardsView(path, face_model)
    if path.joinpath(LOG_NAME).is_file():
        return RunView(path)
    if find_faces(path):
        return ReconstructedView(path, face_model)
    raise ValueError(
        f"{path} must hold shards (*.h5), a run ({LOG_NAME}) or reconstructed faces (*_parameters.json), but holds "
        "none of them; give what `build`, `train` or `reconstruct` wrote"
    )
