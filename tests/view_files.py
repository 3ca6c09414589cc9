"""What the tests of `dualface view` look at: small shards, a run, and reconstructed faces; and its server."""

import json
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Thread

import numpy as np
from PIL import Image
from toy_ftd import write_toy_ftd
from toy_tree import FACE, MODEL, write_tree
from tqdm import tqdm

from asmgen.build import build_asmd
from bfm.charts import make_chart
from bfm.model_file import save_model
from model.mesh_files import MeshTemplate, write_glb, write_obj
from model.run_folder import describe_run, save_sheet
from model.viewer import ViewServer

SIZE = 64
MARKUP = "<img src=x onerror=alert(1)>"
"""A text of a dataset that must stay a text."""

DEPTH = np.array([[0, 30000], [34000, 32000]], np.uint16)
"""A depth file of four pixels, one of them beside the face."""

RECORDS = [
    {"step": 0, "note": f"from weights of {MARKUP}"},
    {"step": 10, "loss": 2.0, "shape": 0.5, "identity_mm": 4.0, "images_per_second": 9.0},
    {"step": 20, "loss": 0.02, "shape": float("nan"), "identity_mm": 3.0},
    {"step": 20, "validation": {"identity_mm": 3.5, "pose_degrees": 7.0}},
]


def write_asmd(folder: Path) -> Path:
    """Shards of six faces of the toy model, with maps."""
    write_tree(folder / "photos", {"AFW": 3, "HELEN": 2, "IBUG": 1})
    quiet = partial(tqdm, disable=True)
    build_asmd(folder / "photos", folder / "asmd", model=MODEL, size=SIZE, shard_size=2, progress=quiet)
    return folder / "asmd"


def write_ftd(folder: Path) -> tuple[Path, Path]:
    """Shards of three textures, and their face model."""
    save_model(MODEL, folder / "model.h5")
    return write_toy_ftd(folder / "ftd", MODEL, 3, SIZE, "dense"), folder / "model.h5"


def write_run(folder: Path) -> Path:
    """A run with three sheets."""
    folder.mkdir()
    config = {"steps": 20, "augmentation": {"flip": 0.5}}
    describe_run(folder, {"kind": "geometry", "config": config, "metadata": {"chart": MARKUP}}, RECORDS)
    for step in (0, 10, 20):
        save_sheet(Image.new("RGB", (90, 60), (step * 10, 80, 80)), folder, step)
    (folder / "checkpoint.pt").write_bytes(b"weights")
    return folder


def write_out(folder: Path) -> Path:
    """Two faces as `reconstruct` writes them: one with its neutral face and pictures, one of an OBJ alone.

    The face model of the first is beside the folder, in ``model.h5``.
    """
    save_model(MODEL, folder.with_name("model.h5"))
    template = MeshTemplate(FACE.triangles, make_chart(FACE, "cylindrical", SIZE))
    (folder / "a b").mkdir(parents=True)
    colours = np.random.default_rng(0).uniform(0.2, 1, (3, SIZE, SIZE))
    full = template.textured(FACE.shape(np.ones(5, np.float32), np.float32([3, -3, 3])), colours)
    neutral = template.textured(FACE.shape(np.ones(5, np.float32), np.zeros(3, np.float32)), colours)
    for ending, mesh in ((".glb", full), ("_neutral.glb", neutral)):
        write_glb(folder / "a b" / f"face#1{ending}", mesh)
    write_glb(folder / "a b" / "face#1_lit.glb", full, unlit=True)
    Image.new("RGB", (90, 30), "teal").save(folder / "a b" / "face#1_overlay.png")
    Image.fromarray(DEPTH).save(folder / "a b" / "face#1_depth.png")
    write_obj(folder / "plain.obj", full)
    parameters = {"pose": [0.1, 0.5, 0], "photometric_error": 0.06, "placed_by": MARKUP, "face_model": "another"}
    known = {"face_model": MODEL.name, "face_model_sha256": MODEL.sha256}
    for name, written in (("a b/face#1", parameters | known), ("plain", parameters)):
        folder.joinpath(f"{name}_parameters.json").write_text(json.dumps(written))
    return folder


@contextmanager
def served(view):
    """The server of a view, in a thread of its own."""
    with ViewServer(view) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
