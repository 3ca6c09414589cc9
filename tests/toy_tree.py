"""A tree of annotated photos in the layout of 300W-LP, rendered from the toy model, so that the truth is known."""

import hashlib
from pathlib import Path

import numpy as np
import scipy.io
from PIL import Image
from toy import toy_model

from asmgen.w300lp import pose_para_from_placement
from bfm.light import sh_basis
from bfm.pose import project
from bfm.render import camera_vertices, render, vertex_normals

MODEL = toy_model()
FACE = MODEL.face_only()
PHOTO = 150
BACKGROUND = (40, 70, 120)
LIGHT = np.array([2.8, 0.15, 0.4, 0.3, 0.05, 0.0, 0.05, -0.05, 0.1], np.float32)
SHIFTED, OUTLINED, FAR, UNLABELLED = 1, 4, 7, 9  # photos: jaw label 5 px off, 2-D labels, large maps, no labels
BAD = {
    "AFW/AFW_3_0": ("unreadable image", lambda arrays, image: (arrays, image[:200])),
    "AFW/AFW_5_0": (
        "damaged annotation", lambda arrays, image: ({**arrays, "Exp_Para": np.full((3, 1), np.nan)}, image)
    ),
    "HELEN/HELEN_2_0": ("no annotation", lambda arrays, image: (None, image)),
    "HELEN/HELEN_4_0": (
        "map out of range",
        lambda arrays, image: ({key: value * (20 if key == "Shape_Para" else 1) for key, value in arrays.items()
                                if not key.startswith("p")}, image),
    ),
}


def truth(index: int) -> dict:
    """Parameters of a photo."""
    rng = np.random.default_rng([7, index])
    size = 1 if index != FAR else 4
    return {
        "id_coeffs": size * rng.normal(size=5).astype(np.float32), "exp_coeffs": rng.normal(size=3).astype(np.float32),
        "albedo_coeffs": rng.normal(size=4).astype(np.float32),
        "pose": rng.uniform(-1, 1, 3) * [0.3, 0.9, 0.3],
        "position": np.array([75, 72, 0.55]) + rng.uniform(-1, 1, 3) * [8, 8, 0.08],
    }


def draw(face: dict) -> tuple[np.ndarray, np.ndarray]:
    """The photo of a face under LIGHT, and its projected landmarks."""
    points = project(MODEL.shape(face["id_coeffs"], face["exp_coeffs"]), face["pose"], face["position"])
    normals = vertex_normals(camera_vertices(points), MODEL.triangles)
    colours = MODEL.albedo(face["albedo_coeffs"]) * (sh_basis(normals) @ LIGHT)[:, None]
    background = np.full((PHOTO, PHOTO, 3), BACKGROUND, np.uint8)
    return render(points, colours, MODEL.triangles, background, 2), points[MODEL.landmarks, :2]


def labels(index: int, landmarks: np.ndarray) -> dict:
    """The annotated landmarks of a photo: exact, but for three photos."""
    if index == UNLABELLED:
        return {}
    if index == OUTLINED:  # the far half of the jaw lies on the visible outline
        return {"pt2d": landmarks.T + 1 + np.where(np.arange(68) < 8, 9, 0)}
    shift = np.outer([3, 4, 0], (np.arange(68) < 17) & (index == SHIFTED))
    return {"pt3d_68": np.concatenate([landmarks.T + 1, np.zeros((1, 68))]).astype(np.float32) + shift}


def annotation(index: int, face: dict, landmarks: np.ndarray) -> dict:
    """What the parameter file of a photo holds."""
    return {
        "Shape_Para": (face["id_coeffs"].astype(np.float64) * MODEL.id_stddev)[:, None],
        "Exp_Para": (face["exp_coeffs"].astype(np.float64) * MODEL.exp_stddev)[:, None],
        "Tex_Para": (face["albedo_coeffs"].astype(np.float64) * MODEL.albedo_stddev)[:, None],
        "Pose_Para": pose_para_from_placement(face["pose"], face["position"], PHOTO), "Face_Model": "toy",
        **labels(index, landmarks),
    }


def write_tree(root: Path, sets: dict) -> dict:
    """Write sets of photos in the layout of 300W-LP; return the truth of the good ones by source."""
    faces, index = {}, 0
    for name, count in sets.items():
        (root / name).mkdir(parents=True)
        for number in range(count):
            source, face = f"{name}/{name}_{number}_0", truth(index)
            picture, landmarks = draw(face)
            arrays = annotation(index, face, landmarks)
            Image.fromarray(picture).save(root / f"{source}.jpg", quality=98, subsampling=0)
            image = (root / f"{source}.jpg").read_bytes()
            if source in BAD:
                arrays, image = BAD[source][1](arrays, image)
                (root / f"{source}.jpg").write_bytes(image)
            else:
                faces[source] = face
            if arrays:
                scipy.io.savemat(root / f"{source}.mat", arrays)
            index += 1
    return faces


def hashes(folder: Path) -> dict:
    files = sorted(path for path in folder.iterdir() if path.is_file())
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
