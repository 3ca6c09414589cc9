"""Face models in the units and schemas that others publish: a small made face, and the real BFM mean where given."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import scipy.io
from scipy.spatial import cKDTree

from bfm.morphable_model import MorphableModel

REAL_DATA = os.environ.get("DUALFACE_REAL_DATA")


@dataclass
class RawFace:
    """A BFM 2009 in its own units: micrometres, RGB 0..255, xyz interleaved; vertices here from 0, wound inward."""

    mu: np.ndarray
    w: np.ndarray
    sigma: np.ndarray
    mu_exp: np.ndarray
    w_exp: np.ndarray
    sigma_exp: np.ndarray
    mu_tex: np.ndarray
    w_tex: np.ndarray
    sigma_tex: np.ndarray
    triangles: np.ndarray
    landmarks: np.ndarray
    pairs: np.ndarray
    trim: np.ndarray
    """(V,) vertices of the raw model that these are"""
    raw_count: int

    def shape(self, shape_para: np.ndarray, exp_para: np.ndarray) -> np.ndarray:
        """The official formula, (V, 3) micrometres."""
        vector = self.mu + self.mu_exp + self.w.astype(np.float64) @ shape_para + self.w_exp @ exp_para
        return vector.reshape(-1, 3)

    def texture(self, tex_para: np.ndarray) -> np.ndarray:
        """The official formula, (V, 3) RGB 0..255."""
        return (self.mu_tex + self.w_tex.astype(np.float64) @ tex_para).reshape(-1, 3)


def landmark_targets() -> np.ndarray:
    """(68, 2) x, y in mm of the landmarks of a plain face."""
    turn = np.linspace(-np.pi / 2, np.pi / 2, 17)
    jaw = np.stack([73 * np.sin(turn), 18 - 104 * np.cos(turn) ** 0.8], 1)
    brow = np.stack([np.linspace(-56, -18, 5), 46 + 3 * np.sin(np.linspace(0, np.pi, 5))], 1)
    nose = np.array([(0, 26), (0, 14), (0, 2), (0, -8), (-14, -16), (-7, -18), (0, -20), (7, -18), (14, -16)])
    eye = np.array([(-43, 26), (-37, 31), (-27, 31), (-19, 26), (-27, 20), (-37, 20)])
    other_eye = eye[[3, 2, 1, 0, 5, 4]] * [-1, 1]
    lips = np.array([(-26, -41), (-16, -35), (-6, -31), (0, -32), (6, -31), (16, -35), (26, -41), (16, -48), (8, -51),
                     (0, -52), (-8, -51), (-16, -48), (-23, -41), (-8, -38), (0, -38), (8, -38), (23, -41), (8, -44),
                     (0, -44), (-8, -44)])
    return np.concatenate([jaw, brow, brow[::-1] * [-1, 1], nose, eye, other_eye, lips]).astype(float)


def made_mesh(rows: int = 61, columns: int = 61, eye_holes: bool = False):
    """A head-like sheet, ears and neck included, with a mouth slit.

    Returns vertices (V, 3) mm, quad cells (C, 4) wound outward, landmarks (68,), mirror (V,).
    """
    azimuth, y = np.meshgrid(np.linspace(-2.1, 2.1, columns), np.linspace(95, -120, rows))
    round_off = np.sqrt(1 - (y / 230) ** 2)
    nose = 24 * np.exp(-((azimuth / 0.16) ** 2) - ((y + 8) / 18) ** 2)
    vertices = np.stack(
        [75 * np.sin(azimuth) * round_off, y, 20 + (85 * np.cos(azimuth) + nose) * round_off], -1
    ).reshape(-1, 3)
    index = np.arange(rows * columns).reshape(rows, columns)
    cells = np.stack([index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:]], -1).reshape(-1, 4)
    middle = vertices[cells].mean(axis=1)

    def slit(at: float, near: np.ndarray) -> np.ndarray:
        """One row of cells at a height, those on the front where `near`."""
        offset = np.abs(middle[:, 1] - at)
        return (offset == offset.min()) & (middle[:, 2] > 40) & near

    hole = slit(-41, np.abs(middle[:, 0]) < 22)
    if eye_holes:
        hole |= slit(25.5, np.abs(np.abs(middle[:, 0]) - 31) < 9)
    front_vertices = np.flatnonzero(vertices[:, 2] > 15)
    nearest = cKDTree(vertices[front_vertices, :2]).query(landmark_targets())[1]
    return vertices, cells[~hole], front_vertices[nearest], index[:, ::-1].ravel()


def made_face(seed: int = 0, id_modes: int = 4, exp_modes: int = 3) -> RawFace:
    """The made mesh as a BFM 2009, with seven raw vertices that the trimmed layout leaves out."""
    vertices, cells, landmarks, mirror = made_mesh()
    triangles = np.concatenate([cells[:, [0, 2, 1]], cells[:, [0, 3, 2]]])  # inward, as published
    own = np.arange(len(mirror))
    pairs = np.stack([own, mirror], 1)[own <= mirror].T
    rng = np.random.default_rng(seed)
    trim = np.sort(rng.permutation(len(vertices) + 7)[:len(vertices)])
    return _with_modes(rng, vertices, triangles, landmarks, pairs, trim, len(vertices) + 7, id_modes, exp_modes)


def real_face(seed: int = 0, id_modes: int = 4, exp_modes: int = 3) -> RawFace:
    """The real BFM 2009 mean and mesh, in 3DDFA's layout, with made modes; needs the real files."""
    pieces, info = Path(REAL_DATA) / "bfm_pieces_3ddfa", real_info()
    mean, mean_exp = np.load(pieces / "u_shp.npy").ravel(), np.load(pieces / "u_exp.npy").ravel()
    face = _with_modes(
        np.random.default_rng(seed), mean.reshape(-1, 3) / 1000.0, info["tri"].T.astype(int) - 1,
        info["keypoints"].ravel().astype(int) - 1, info["symlist"].astype(int) - 1,
        info["trimIndex"].ravel().astype(int) - 1, 53490, id_modes, exp_modes,
    )
    face.mu, face.mu_exp = mean, mean_exp
    return face


def real_info() -> dict:
    """3DDFA's Model_info.mat."""
    return scipy.io.loadmat(Path(REAL_DATA) / "bfm_index" / "Model_info.mat")


def _with_modes(rng, vertices, triangles, landmarks, pairs, trim, raw_count, id_modes, exp_modes) -> RawFace:
    rows = 3 * len(vertices)

    def unit(count: int) -> np.ndarray:
        basis = rng.normal(size=(rows, count))
        return (basis / np.linalg.norm(basis, axis=0)).astype(np.float32)

    return RawFace(
        mu=(vertices * 1000).astype(np.float32).ravel(), w=unit(id_modes),
        sigma=np.geomspace(9e5, 2e5, id_modes).astype(np.float32),
        mu_exp=rng.normal(size=rows).astype(np.float32) * 50,
        w_exp=rng.normal(size=(rows, exp_modes)).astype(np.float32) * 2000,
        sigma_exp=np.geomspace(1.3, 0.2, exp_modes), mu_tex=rng.uniform(60, 200, rows).astype(np.float32),
        w_tex=unit(id_modes), sigma_tex=np.geomspace(5e3, 5e2, id_modes).astype(np.float32),
        triangles=triangles, landmarks=landmarks, pairs=pairs, trim=trim, raw_count=raw_count,
    )


def write_as_before(path: Path, model: MorphableModel) -> None:
    """A model in this program's own format as it was until November 2026: texts of any length, and no digest."""
    with h5py.File(path, "w", libver=("v108", "v108")) as file:
        file.attrs.update(kind="dualface face model", schema_version=1, sha256=model.sha256)
        for key, value in vars(model).items():
            if isinstance(value, np.ndarray) and value.size:
                chunks = (1, *value.shape[1:]) if value.ndim == 3 else value.shape
                file.create_dataset(key, data=value, compression="gzip", shuffle=True, chunks=chunks)
            elif isinstance(value, np.ndarray):
                file[key] = value
            elif key in ("name", "layout", "coefficients", "licence"):
                file.attrs[key] = value


def write_raw(folder: Path, face: RawFace) -> Path:
    """``01_MorphableModel.mat``; the vertices that trimIndex leaves out are at the origin."""
    rows = (3 * face.trim[:, None] + np.arange(3)).ravel()

    def spread(values: np.ndarray) -> np.ndarray:
        out = np.zeros((3 * face.raw_count, *values.shape[1:]), np.float32)
        out[rows] = values
        return out

    path = folder / "01_MorphableModel.mat"
    scipy.io.savemat(path, {
        "shapeMU": spread(face.mu)[:, None], "shapePC": spread(face.w), "shapeEV": face.sigma[:, None],
        "texMU": spread(face.mu_tex)[:, None], "texPC": spread(face.w_tex), "texEV": face.sigma_tex[:, None],
        "tl": face.trim[face.triangles].astype(np.float64) + 1,
    })
    return path


def write_info(folder: Path, face: RawFace) -> Path:
    """``Model_info.mat``."""
    path = folder / "Model_info.mat"
    scipy.io.savemat(path, {
        "trimIndex": (face.trim[:, None] + 1).astype(np.uint16), "tri": (face.triangles.T + 1).astype(np.uint16),
        "keypoints": (face.landmarks[None] + 1).astype(np.uint16), "symlist": (face.pairs + 1).astype(np.uint16),
        "segbin": np.zeros((face.raw_count, 4), np.uint8),
    })
    return path


def write_expressions(folder: Path, face: RawFace, with_sigma: bool = True) -> Path:
    """3DDFA's ``Model_Exp.mat``."""
    path = folder / "Model_Exp.mat"
    sigma = {"sigma_exp": face.sigma_exp[:, None]} if with_sigma else {}
    scipy.io.savemat(path, {"mu_exp": face.mu_exp[:, None], "w_exp": face.w_exp, **sigma})
    return path


def write_guo(folder: Path, face: RawFace) -> list[Path]:
    """Guo et al.'s ``Exp_Pca.bin`` and ``std_exp.txt``."""
    binary, text = folder / "Exp_Pca.bin", folder / "std_exp.txt"
    modes = face.w_exp.shape[1]
    binary.write_bytes(
        np.int32(modes).tobytes() + face.mu_exp.astype("<f4").tobytes()
        + np.ascontiguousarray(face.w_exp.T, "<f4").tobytes()
    )
    text.write_text(" ".join(f"{value:.17g}" for value in face.sigma_exp) + "\n")
    return [binary, text]


def write_3ddfa(folder: Path, face: RawFace, texture: str = "mu_tex") -> Path:
    """3DDFA's ``Model_Shape.mat``; `texture` "mu_tex" or "tex" as copies of it differ, or "" for none."""
    path = folder / "Model_Shape.mat"
    content = {
        "mu_shape": face.mu[:, None], "w": face.w, "sigma": face.sigma[:, None].astype(np.float64),
        "tri": (face.triangles.T + 1).astype(np.float64), "keypoints": (face.landmarks[None] + 1).astype(np.float64),
        "symlist": (face.pairs + 1).astype(np.float64),
    }
    if texture == "mu_tex":
        content |= {"mu_tex": face.mu_tex[:, None], "w_tex": face.w_tex, "sigma_tex": face.sigma_tex[:, None]}
    elif texture == "tex":
        content |= {"tex": face.mu_tex.reshape(-1, 3).T, "w_tex": face.w_tex, "alpha_tex": face.sigma_tex[:, None]}
    scipy.io.savemat(path, content)
    return path


def write_face3d(folder: Path, face: RawFace, mouth: np.ndarray) -> Path:
    """face3d's ``BFM.mat``; `mouth` (M, 3) from 0."""
    path = folder / "BFM.mat"
    scipy.io.savemat(path, {"model": {
        "shapeMU": face.mu[:, None], "shapePC": face.w, "shapeEV": face.sigma[:, None],
        "expMU": face.mu_exp[:, None], "expPC": face.w_exp, "expEV": face.sigma_exp[:, None],
        "texMU": face.mu_tex[:, None], "texPC": face.w_tex, "texEV": face.sigma_tex[:, None],
        "tri": (face.triangles.T + 1).astype(np.int32), "tri_mouth": (mouth.T + 1).astype(np.int32),
        "kpt_ind": (face.landmarks[None] + 1).astype(np.int32),
    }})
    return path


def write_bfm2017(folder: Path, face: RawFace, names: dict[str, int] | None = None) -> Path:
    """A Statismo file in mm and RGB in [0, 1]; `names` of landmarks and the vertex each is at."""
    path = folder / "model2017-1_bfm_nomouth.h5"
    mean = (face.mu / 1000).astype(np.float32)
    with h5py.File(path, "w") as file:
        for part, values, basis, stddev in (
            ("shape", mean, face.w, face.sigma / 1000),
            ("expression", face.mu_exp / 1000, face.w_exp / 1000, face.sigma_exp),
            ("color", face.mu_tex / 255, face.w_tex, face.sigma_tex / 255),
        ):
            file[f"{part}/model/mean"] = values.astype(np.float32)
            file[f"{part}/model/pcaBasis"] = basis
            file[f"{part}/model/pcaVariance"] = (stddev**2).astype(np.float32)
        file["shape/representer/cells"] = face.triangles.T.astype(np.int32)
        file["shape/representer/points"] = mean.reshape(-1, 3).T
        if names is not None:
            listed = [{"id": name, "coordinates": mean.reshape(-1, 3)[vertex].tolist()}
                      for name, vertex in names.items()]
            file["metadata/landmarks/json"] = json.dumps(listed)
    return path


def write_ict(folder: Path, seed: int = 0) -> dict:
    """A folder with ICT-FaceKit's vertex and face ranges: quads and triangles, seams outside the narrow face.

    Returns the arrays behind it: `meshes` name -> (26719, 3) cm, `polygons` of the face, `uv` (9409, 2).
    """
    from bfm.landmarks import ICT

    rng = np.random.default_rng(seed)
    grid, cells, landmarks, _ = made_mesh(97, 97, eye_holes=True)  # 97 x 97 is 9409
    # ICT's landmark numbers where the landmarks are, the front of the face in 0-6705
    assert len(set(landmarks)) == 68
    number = np.full(9409, -1)
    number[landmarks] = ICT
    front = np.argsort(np.abs(np.arctan2(grid[:, 0], grid[:, 2] - 20)), kind="stable")
    free = np.setdiff1d(np.arange(9409), ICT)
    number[[vertex for vertex in front if number[vertex] < 0]] = free
    vertices = np.empty((26719, 3))
    vertices[number] = grid / 10
    vertices[9409:] = rng.normal(size=(26719 - 9409, 3))
    flat = np.stack([np.arctan2(grid[:, 0], grid[:, 2] - 20) / 4.4 + 0.5, (grid[:, 1] + 125) / 225], 1)
    uv = np.empty((9409, 2))
    uv[number] = flat
    polygons = number[cells].tolist()
    split = 9230 - len(polygons)
    polygons = polygons[split:] + [part for quad in polygons[:split]
                                   for part in ([quad[0], quad[1], quad[2]], [quad[0], quad[2], quad[3]])]
    folder.mkdir()
    meshes = {"generic_neutral_mesh": vertices}
    for name in ("identity000", "identity001", "browDown_L", "jawOpen"):
        meshes[name] = vertices + rng.normal(size=vertices.shape) * 0.1
    for name, positions in meshes.items():
        lines = ["mtllib ICTFaceModelMaterial.mtl"] + ["v %.15f %.15f %.15f" % tuple(point) for point in positions]
        if name == "generic_neutral_mesh":
            # each UV on tile 0; vertices from 9300 on have a second one on tile 3, used first
            lines += ["vt %.6f %.6f" % tuple(point) for point in uv]
            lines += ["vt %.6f %.6f" % (point[0] + 3, point[1]) for point in uv]
            seen, uses = set(), np.bincount(np.concatenate(polygons))
            for polygon in polygons + [[9409, 9410, 9411, 9412]]:
                corners = []
                for vertex in polygon:
                    second = 9300 <= vertex < 9409 and vertex not in seen and uses[vertex] > 1
                    seen.add(vertex)
                    texture = min(vertex, 9408) + (9409 if second else 0)
                    corners.append(f"{vertex + 1}/{texture + 1}/1")
                lines.append("f " + " ".join(corners))
        (folder / f"{name}.obj").write_text("\n".join(lines) + "\n")
    return {"meshes": meshes, "polygons": polygons, "uv": uv}
