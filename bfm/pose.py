"""Where a face stands in an image: pose, position, projection, and what an image transform does to them.

A *placement* is a pose and a position. Dimension key: ... any batch, V points.

pose      (..., 3)  pitch, yaw, roll in radians, 300W-LP's signs and order.
position  (..., 3)  t_x, t_y in pixels and scale in pixels a millimetre: where the model's origin is, and how large.
Pixels    0-based, centres at whole numbers, x right, y down.
Functions take numpy arrays or torch tensors and return the same kind.
"""

from __future__ import annotations

import math

import numpy as np

from bfm.namespace import array_namespace


def rotation_matrix(pose: np.ndarray) -> np.ndarray:
    """Return the rotation ``Rx(pitch) @ Ry(yaw) @ Rz(roll)`` of 300W-LP.

    Parameters
    ----------
    pose : np.ndarray
        (..., 3) pitch, yaw, roll in radians.

    Returns
    -------
    np.ndarray
        (..., 3, 3), to be applied to column vectors; x left of the subject, y up, z toward the camera.
    """
    xp = array_namespace(pose)
    (cp, cy, cr), (sp, sy, sr) = (
        (values[..., 0], values[..., 1], values[..., 2]) for values in (xp.cos(pose), xp.sin(pose))
    )
    rows = (
        (cy * cr, cy * sr, -sy),
        (sp * sy * cr - cp * sr, sp * sy * sr + cp * cr, sp * cy),
        (cp * sy * cr + sp * sr, cp * sy * sr - sp * cr, cp * cy),
    )
    return xp.stack([xp.stack(row, -1) for row in rows], -2)


def pose_from_rotation(rotation: np.ndarray) -> np.ndarray:
    """Return the pose of a rotation, the inverse of `rotation_matrix`; |yaw| <= 90 degrees.

    Parameters
    ----------
    rotation : np.ndarray
        (..., 3, 3) rotation matrices.

    Returns
    -------
    np.ndarray
        (..., 3) pitch, yaw, roll in radians. At yaw = +-90 degrees pitch and roll turn about one axis;
        any pair returned there still gives back `rotation`.
    """
    xp = array_namespace(rotation)
    yaw = -xp.asin(xp.clip(rotation[..., 0, 2], -1.0, 1.0))
    pitch = xp.atan2(rotation[..., 1, 2], rotation[..., 2, 2])
    # roll from what remains once pitch is undone, so that a pitch made of noise at yaw 90 is compensated
    roll = xp.atan2(
        xp.sin(pitch) * rotation[..., 2, 0] - xp.cos(pitch) * rotation[..., 1, 0],
        xp.cos(pitch) * rotation[..., 1, 1] - xp.sin(pitch) * rotation[..., 2, 1],
    )
    return xp.stack([pitch, yaw, roll], -1)


def project(
    vertices: np.ndarray, pose: np.ndarray, position: np.ndarray, distance: float = math.inf
) -> np.ndarray:
    """Place canonical vertices in an image, by perspective or by scaled orthographic projection.

    With ``(X, Y, Z)`` the turned vertex in mm and ``w = 1 - Z / distance``, its distance from the camera over that of
    the origin: ``x = t_x + scale X / w``, ``y = t_y - scale Y / w`` and ``depth = scale Z / w``, which is linear
    on the screen over a triangle. The camera's axis goes through the origin.

    Parameters
    ----------
    vertices : np.ndarray
        (..., V, 3) mm, nearer to the origin than `distance` along the axis (see `project_homogeneous`).
    pose : np.ndarray
        (..., 3) radians.
    position : np.ndarray
        (..., 3) t_x, t_y (pixels), scale (pixels a millimetre, at the origin's distance).
    distance : float
        Of the camera from the model's origin, mm; infinite is 300W-LP's scaled orthographic camera.

    Returns
    -------
    np.ndarray
        (..., V, 3) x and y in pixels, and depth in pixels; larger depth is nearer the camera. ValueError is raised
        for a distance that is not positive.
    """
    xp = array_namespace(vertices)
    turned = vertices @ xp.swapaxes(rotation_matrix(pose), -1, -2)
    if distance != math.inf:
        turned = turned / _relative_distance(turned, distance)[..., None]
    turned = turned * position[..., None, 2:3]
    return xp.stack(
        [
            turned[..., 0] + position[..., None, 0],
            position[..., None, 1] - turned[..., 1],
            turned[..., 2],
        ],
        -1,
    )


def project_homogeneous(
    vertices: np.ndarray, pose: np.ndarray, position: np.ndarray, distance: float = math.inf
) -> np.ndarray:
    """Place canonical vertices in an image as `project` does, in homogeneous coordinates.

    These are finite and linear in the vertices everywhere, beside the camera and behind it too.

    Parameters
    ----------
    vertices : np.ndarray
        (..., V, 3) mm.
    pose : np.ndarray
        (..., 3) radians.
    position : np.ndarray
        (..., 3) t_x, t_y (pixels), scale (pixels a millimetre, at the origin's distance).
    distance : float
        Of the camera from the model's origin, mm; infinite is 300W-LP's scaled orthographic camera.

    Returns
    -------
    np.ndarray
        (..., V, 4) ``x w, y w, depth w, w``; w is 1 at the origin and everywhere for an infinite distance, 0 beside
        the camera and negative behind it. ValueError is raised for a distance that is not positive.
    """
    xp = array_namespace(vertices)
    turned = vertices @ xp.swapaxes(rotation_matrix(pose), -1, -2)
    w = _relative_distance(turned, distance)
    turned = turned * position[..., None, 2:3]
    return xp.stack(
        [
            turned[..., 0] + position[..., None, 0] * w,
            position[..., None, 1] * w - turned[..., 1],
            turned[..., 2],
            w,
        ],
        -1,
    )


def _relative_distance(turned: np.ndarray, distance: float) -> np.ndarray:
    """(..., V) distance of turned vertices from the camera, along its axis, over that of the origin."""
    if not distance > 0:
        raise ValueError(f"distance must be positive, in mm from the model's origin, got {distance}")
    return 1 - turned[..., 2] / distance


def transform_points(points: np.ndarray, transform: np.ndarray) -> np.ndarray:
    """Apply (..., 2, 3) affine pixel transforms to (..., N, 2) points."""
    xp = array_namespace(points)
    return points @ xp.swapaxes(transform[..., :2], -1, -2) + transform[..., None, :, 2]


def transform_placement(
    pose: np.ndarray, position: np.ndarray, transform: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the placement after an image transform, so that projecting commutes with it.

    Parameters
    ----------
    pose : np.ndarray
        (..., 3) radians.
    position : np.ndarray
        (..., 3) t_x, t_y, scale.
    transform : np.ndarray
        (..., 2, 3) similarity from old to new pixels, ``[[a, -b, x], [b, a, y]]``; no reflection (see
        `mirror_placement`).

    Returns
    -------
    tuple[np.ndarray, np.ndarray]
        (..., 3) pose and (..., 3) position; an in-plane angle goes into all three pose angles, an upright
        transform leaves them as they are (also where |yaw| is 90 degrees or more, and other angles mean the same).
    """
    xp = array_namespace(pose)
    a, b = transform[..., 0, 0], transform[..., 1, 0]
    factor = xp.sqrt(a * a + b * b)
    zero = xp.zeros_like(a)
    in_plane = rotation_matrix(xp.stack([zero, zero, xp.atan2(b, a)], -1))
    moved = transform_points(position[..., None, :2], transform)[..., 0, :]
    turned = pose_from_rotation(in_plane @ rotation_matrix(pose))
    upright = ((b == 0) & (a > 0))[..., None]
    return (
        xp.where(upright, pose, turned),
        xp.stack([moved[..., 0], moved[..., 1], position[..., 2] * factor], -1),
    )


def mirror_placement(pose: np.ndarray, position: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the placement of the mirrored face in the image flipped left to right.

    Parameters
    ----------
    pose : np.ndarray
        (..., 3) radians.
    position : np.ndarray
        (..., 3) t_x, t_y, scale.
    width : int
        Image width in pixels.

    Returns
    -------
    tuple[np.ndarray, np.ndarray]
        (..., 3) pose and (..., 3) position for the shape with x negated.
    """
    xp = array_namespace(pose)
    return (
        xp.stack([pose[..., 0], -pose[..., 1], -pose[..., 2]], -1),
        xp.stack([width - 1 - position[..., 0], position[..., 1], position[..., 2]], -1),
    )
