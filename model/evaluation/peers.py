"""What others published on AFLW2000-3D. No number here was measured by this program, and none is an estimate.

68 landmarks: percent of sqrt(w h) of the true landmarks' box, x and y; the mean is the unweighted one of the three
bins. Dense: percent of the outer interocular distance in space; with ICP and with known correspondence the numbers are
not comparable (`model.evaluation.dense`).
"""

from __future__ import annotations

from typing import NamedTuple


class LandmarkPeer(NamedTuple):
    """A method's NME of 68 landmarks, percent.

    Attributes
    ----------
    method : str
        Its name.
    bins : tuple[float, ...] | None
        By `model.evaluation.nme.YAW_BINS`; None where the source has the mean alone.
    mean_of_bins : float
        Unweighted mean of the bins.
    annotation : str | None
        Which landmarks were the truth; None where the source does not say.
    source : str
        Where the numbers were read.
    """

    method: str
    bins: tuple[float, ...] | None
    mean_of_bins: float
    annotation: str | None
    source: str


class DensePeer(NamedTuple):
    """A method's error of the whole shape, percent of the outer interocular distance.

    Attributes
    ----------
    method : str
        Its name.
    alignment : str | None
        Of `model.evaluation.dense.ALIGNMENTS`; None where the source does not say.
    nme : float
        Mean over the photos.
    source : str
        Where the number was read.
    """

    method: str
    alignment: str | None
    nme: float
    source: str


_DEEP3D = "README of microsoft/Deep3DFaceReconstruction"

LANDMARK_PEERS = (
    LandmarkPeer("3DDFA", (3.78, 4.54, 7.93), 5.42, "original", _DEEP3D),
    LandmarkPeer("3DDFA + SDM", (3.43, 4.24, 7.17), 4.94, "original", _DEEP3D),
    LandmarkPeer("3DDFA, PyTorch, WPDC + VDC", None, 4.252, None, "README of cleardusk/3DDFA"),
    LandmarkPeer("PRNet", (2.75, 3.51, 4.61), 3.62, "original", _DEEP3D),
    LandmarkPeer("3DDFA_V2", None, 3.51, "original", "Guo et al., ECCV 2020"),
    LandmarkPeer("SADRNet", None, 3.46, "original", "Ruan et al., 2021 (arXiv 2106.03021)"),
    LandmarkPeer("SynergyNet", None, 3.41, "original", "Wu et al., 3DV 2021"),
    LandmarkPeer("Deep3DFaceReconstruction", (2.56, 3.11, 4.45), 3.37, None, _DEEP3D),
    LandmarkPeer("3D-FAN", (2.47, 3.01, 4.31), 3.26, None, _DEEP3D),
)

_PAPER = "Chai et al., IEEE TMM, Table III"

DENSE_PEERS = (
    DensePeer("PRNet", "icp", 3.96, "Feng et al., ECCV 2018"),
    DensePeer("SADRNet", "correspondence", 3.25, "Ruan et al., 2021, by their code"),
    DensePeer("the paper, MSE alone", None, 4.651, _PAPER),
    DensePeer("the paper, + W", None, 4.203, _PAPER),
    DensePeer("the paper, + W + symmetry", None, 4.124, _PAPER),
    DensePeer("the paper, + W + symmetry + regularisation", None, 3.912, _PAPER),
)
