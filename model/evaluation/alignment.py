"""A predicted face laid onto a scan by ICP, and the distance of the scan from it.

Dimension key: N vertices of the scan, M of the prediction, K pairs.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType

import numpy as np
from scipy.spatial.transform import Rotation

from bfm.render import vertex_normals
from bfm.similarity import Similarity, fit_similarity
from model.evaluation.scans import JAW_POINTS, Scan, border, nose_tip

CROP_RADIUS = 95.0
"""About the scan's nose tip, mm: what both MICC protocols compare."""

_CELL = 3.0  # mm: one vertex of the scan a cell takes part in the alignment, so that dense parts don't weigh more
_STAGES = (20.0, 10.0)  # mm: pairs further apart don't count; the second stage starts from the first
_OUTLIERS = 4.685 * 1.4826  # of the median distance: where Tukey's weight reaches 0
_LEAST_OUTLIER = 3.0  # mm
_ROUNDS, _ITERATIONS = 40, 5
_SETTLED = 1e-3  # mm: the furthest that a round may still move a vertex
_ZERO = 1e-5  # weight of a corner that a point on an edge has nothing to do with
_NEEDED = 100  # vertices


@dataclass(frozen=True, eq=False)
class Alignment:
    """How a prediction lies on a scan, and how well.

    Attributes
    ----------
    transform : Similarity
        From the prediction to the scan.
    fitness : float
        Of the scan's vertices that took part, the fraction with the prediction within 10 mm.
    inlier_rmse : float
        Root mean square distance of these pairs of vertices, mm of the scan: what a vertex is off its pair, along the
        surface too.
    landmark_distance : float | None
        Mean distance of the landmarks that both have, without the jaw's, mm of the scan; None if they share none.
    """

    transform: Similarity
    fitness: float
    inlier_rmse: float
    landmark_distance: float | None

    def quality(self) -> dict:
        """Return the alignment's own quality and its scale, for a report."""
        values = {
            "scale": self.transform.scale, "fitness": self.fitness, "inlier_rmse_mm": self.inlier_rmse,
            "landmark_distance_mm": self.landmark_distance,
        }
        return {name: value if value is None else round(float(value), 5) for name, value in values.items()}


def initial_transform(prediction: Scan, scan: Scan, scale: bool = True) -> Similarity:
    """Return about where a prediction lies on a scan.

    Parameters
    ----------
    prediction : Scan
        The face.
    scan : Scan
        The head.
    scale : bool
        Whether the landmarks may scale.

    Returns
    -------
    Similarity
        That of the landmarks that both have, without the jaw's, if there are four at least; or else nose tip on nose
        tip (`nose_tip`), both taken as frontal and in mm.
    """
    source, target = _shared_landmarks(prediction, scan)
    if len(source) >= 4:
        return fit_similarity(source, target, scale)
    return Similarity(1.0, np.eye(3), nose_tip(scan) - nose_tip(prediction))


def align(
    prediction: Scan, scan: Scan, scale: bool = True, start: Similarity | None = None, radius: float = CROP_RADIUS
) -> Alignment:
    """Lay a prediction onto a scan by point-to-plane ICP.

    Each vertex p of the scan (one a `_CELL`, within `radius` of its nose tip) is paired with the nearest vertex q of
    the prediction, whose normal is n, and ``sum w ((p' - q) . n)^2`` is made small over the motion p -> p'; w is
    Tukey's weight, so that hair and neck, which the prediction lacks, don't pull. The motion found is inverted.
    Open3D's ICP moves rigidly; its point-to-plane estimate has no scale, so that with `scale` each run of it is
    followed by one Gauss-Newton step of the same sum over all seven parameters, until nothing moves any more.

    The other ways were measured on scans with known truth, from a start 10 % too large, 15 degrees and 20 mm off: the
    scale of Open3D's point-to-point ICP in turn with it is off by 1 %, pairs from prediction to scan by 0.08 %, this by
    0.02 %.

    Parameters
    ----------
    prediction : Scan
        The face.
    scan : Scan
        The head.
    scale : bool
        True finds a similarity; False keeps the scale of `start`.
    start : Similarity | None
        From the prediction to the scan; None is that of `initial_transform`, without scale if `scale` is False.
    radius : float
        About the scan's nose tip, mm.

    Returns
    -------
    Alignment
        The motion, and its quality.

    Raises
    ------
    ValueError
        If fewer than 100 vertices of the scan take part, or nothing of the prediction is near them. Where Open3D can't
        be imported, an OSError says what to install.
    """
    registration = _open3d().pipelines.registration
    start = start or initial_transform(prediction, scan, scale)
    near = scan.vertices[np.linalg.norm(scan.vertices - nose_tip(scan), axis=1) < radius]
    near = near[np.unique(np.floor(near / _CELL).astype(np.int64), axis=0, return_index=True)[1]]
    if len(near) < _NEEDED:
        raise ValueError(
            f"{scan.name} has only {len(near)} vertices within {radius:g} mm of its nose tip; is it in mm?"
        )
    surface = _Surface(start.apply(prediction.vertices), prediction.triangles)  # about in mm of the scan
    motion = Similarity(1.0, np.eye(3), np.zeros(3))
    for reach in _STAGES:
        for _ in range(_ROUNDS):
            points = motion.apply(near)
            found = registration.evaluate_registration(_cloud(points), surface.cloud, reach)
            if len(found.correspondence_set) < _NEEDED:
                raise ValueError(f"{prediction.name} does not come within {reach:g} mm of {scan.name}; are both in mm?")
            outlier = max(_LEAST_OUTLIER, _OUTLIERS * float(np.median(np.abs(surface.residuals(points, found)))))
            found = registration.registration_icp(
                _cloud(points), surface.cloud, reach, np.eye(4),
                registration.TransformationEstimationPointToPlane(registration.TukeyLoss(outlier)),
                registration.ICPConvergenceCriteria(1e-9, 1e-9, _ITERATIONS),
            )
            step = Similarity(1.0, found.transformation[:3, :3], found.transformation[:3, 3])
            if scale:
                step = _after(surface.scaling_step(step.apply(points), found, outlier), step)
            motion = _after(step, motion)
            if np.abs(step.apply(points) - points).max() < _SETTLED:
                break
    found = registration.evaluate_registration(_cloud(motion.apply(near)), surface.cloud, _STAGES[-1])
    transform = _after(_inverse(motion), start)
    source, target = _shared_landmarks(prediction, scan)
    off = float(np.linalg.norm(transform.apply(source) - target, axis=1).mean()) if len(source) else None
    return Alignment(transform, found.fitness, found.inlier_rmse / motion.scale, off)


def surface_distances(points: np.ndarray, mesh: Scan) -> tuple[np.ndarray, np.ndarray]:
    """Return the point-to-plane distance of points from a surface.

    That is ``|(p - q) . n|`` with q the nearest point of the surface, wherever it lies in a triangle, and n the normal
    of that triangle.

    Parameters
    ----------
    points : np.ndarray
        (N, 3) mm.
    mesh : Scan
        The surface, mm.

    Returns
    -------
    tuple[np.ndarray, np.ndarray]
        (N,) mm; and (N,) bool, whether the surface lies before or behind the point, which it does not where q is on the
        surface's rim.
    """
    open3d = _open3d()
    scene = open3d.t.geometry.RaycastingScene()
    scene.add_triangles(
        np.ascontiguousarray(mesh.vertices, np.float32), np.ascontiguousarray(mesh.triangles, np.uint32)
    )
    nearest = {name: part.numpy() for name, part in scene.compute_closest_points(points.astype(np.float32)).items()}
    corners = mesh.triangles[nearest["primitive_ids"]]
    a, b, c = (mesh.vertices[corners[:, k]] for k in range(3))
    normals = np.cross(b - a, c - a)
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), np.finfo(np.float64).tiny)
    u, v = nearest["primitive_uvs"].T.astype(np.float64)  # weights of b and c
    weights = np.stack([1 - u - v, u, v], 1)
    # on the rim: all that weighs are vertices of it
    on_rim = (border(mesh.triangles, len(mesh.vertices))[corners] | (weights < _ZERO)).all(1)
    distances = np.abs(np.einsum("nk,nk->n", points - nearest["points"], normals))
    return distances, ~on_rim


class _Surface:
    """Vertices and normals of what the scan is moved onto, and the sums over pairs with them."""

    def __init__(self, vertices: np.ndarray, triangles: np.ndarray):
        self.vertices, self.normals = vertices, vertex_normals(vertices, triangles)
        self.cloud = _cloud(self.vertices)
        self.cloud.normals = _open3d().utility.Vector3dVector(self.normals)

    def residuals(self, points: np.ndarray, found) -> np.ndarray:
        """(K,) mm: signed distance of each paired point from the plane at its pair."""
        source, target = np.asarray(found.correspondence_set).T
        return np.einsum("kj,kj->k", points[source] - self.vertices[target], self.normals[target])

    def scaling_step(self, points: np.ndarray, found, outlier: float) -> Similarity:
        """One Gauss-Newton step over rotation, translation and scale, about the middle of the paired points."""
        source, target = np.asarray(found.correspondence_set).T
        residuals, normals = self.residuals(points, found), self.normals[target]
        weights = np.clip(1 - (residuals / outlier) ** 2, 0, None) ** 2
        middle = points[source].mean(0)
        arms = points[source] - middle
        slopes = np.column_stack([np.cross(arms, normals), normals, np.einsum("kj,kj->k", arms, normals)])
        weighted = slopes * weights[:, None]
        solution = np.linalg.solve(weighted.T @ slopes, -weighted.T @ residuals)
        rotation, scale = Rotation.from_rotvec(solution[:3]).as_matrix(), 1 + solution[6]
        return Similarity(scale, rotation, middle + solution[3:6] - scale * rotation @ middle)


def _cloud(points: np.ndarray):
    """An Open3D point cloud."""
    open3d = _open3d()
    return open3d.geometry.PointCloud(open3d.utility.Vector3dVector(points))


def _after(second: Similarity, first: Similarity) -> Similarity:
    """The motion that is one and then another."""
    return Similarity(
        second.scale * first.scale, second.rotation @ first.rotation, second.apply(first.translation)
    )


def _inverse(motion: Similarity) -> Similarity:
    """The motion back."""
    rotation = motion.rotation.T
    return Similarity(1 / motion.scale, rotation, -rotation @ motion.translation / motion.scale)


def _shared_landmarks(prediction: Scan, scan: Scan) -> tuple[np.ndarray, np.ndarray]:
    """(L, 3) landmarks of each that both have; those of the jaw are on no fixed place of a face."""
    shared = sorted(number for number in prediction.landmarks.keys() & scan.landmarks.keys() if number >= JAW_POINTS)
    source, target = (
        np.array([mesh.landmarks[number] for number in shared]).reshape(-1, 3) for mesh in (prediction, scan)
    )
    return source, target


def _open3d() -> ModuleType:
    """Open3D, or what to install."""
    try:
        import open3d
    except (ImportError, OSError) as error:
        raise OSError(
            f"scans are aligned with open3d, which does not import ({error}); install open3d, and on Linux the system "
            "library libusb-1.0"
        ) from error
    return open3d
