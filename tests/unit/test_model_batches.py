import dataclasses
import math

import numpy as np
import pytest
import torch
from toy import toy_model
from toy_asmd import draw_face, write_toy_asmd

from asmgen.maps import AttributeMaps
from bfm.charts import make_chart
from bfm.light import sh_basis
from bfm.pose import project, rotation_matrix
from model.augment import LANDMARK_MIRROR, similarity, warp
from model.batches import GeometryBatch, GeometryPreparer, augment_geometry, mirrored_albedo
from model.config import NO_AUGMENTATION, Augmentation
from model.data import FaceDataset, step_generator
from model.geometry import Parameters, denormalise_position, normalise_position

SIZE = 64
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model():
    return toy_model()


@pytest.fixture(scope="module")
def maps(model):
    return AttributeMaps.from_model(model, make_chart(model, "cylindrical", SIZE))


def collate(dataset, indices):
    return torch.utils.data.default_collate([dataset[index] for index in indices])


def spots(points, size):
    """An image of Gaussian spots at (N, 2) points."""
    grid = np.stack(np.meshgrid(np.arange(size), np.arange(size)), -1)
    distance = ((grid[None] - points[:, None, None]) ** 2).sum(-1)
    return np.exp(-distance / (2 * 2.0**2)).sum(0)


def centre_of_spot(image, near, radius=6):
    """The centroid of the spot nearest to a point, to a hundredth of a pixel."""
    x, y = np.round(near).astype(int)
    window = image[y - radius:y + radius + 1, x - radius:x + radius + 1]
    dy, dx = np.mgrid[-radius:radius + 1, -radius:radius + 1]
    return np.array([x + (window * dx).sum() / window.sum(), y + (window * dy).sum() / window.sum()])


def make_batch(model, maps, size, count=6):
    """Random faces, and images with a spot at each of five well-separated vertices."""
    rng = np.random.default_rng(3)
    chosen = np.array([2 * 17 + 8, 10 * 17 + 3, 10 * 17 + 13, 18 * 17 + 4, 18 * 17 + 11])
    faces = [draw_face(model, size, seed) for seed in range(count)]
    numbers = {key: np.stack([face[key] for face in faces]) for key in faces[0]}
    vertices = model.shape(numbers["id_coeffs"], numbers["exp_coeffs"])
    numbers["position"][:, 2] *= 0.55  # so that no augmentation pushes a spot out
    numbers["pose"] *= 0.7
    points = project(vertices, numbers["pose"], numbers["position"])
    image = np.stack([spots(p[chosen, :2], size) for p in points])[:, None].repeat(3, 1)
    tensors = {key: torch.from_numpy(value).float() for key, value in numbers.items()}
    parameters = Parameters(
        torch.from_numpy(rng.standard_normal((count, 4))).float(), tensors["light"], tensors["pose"],
        normalise_position(tensors["position"], size),
    )
    return chosen, GeometryBatch(
        torch.from_numpy(image).float(),
        torch.from_numpy(maps.identity_map(numbers["id_coeffs"])),
        torch.from_numpy(maps.expression_map(numbers["exp_coeffs"])),
        parameters, tensors["position"], torch.from_numpy(points[:, model.landmarks, :2]).float(),
    )


@pytest.mark.parametrize("flip", (0.0, 1.0))
def test_augmented_mesh_lies_on_the_augmented_image(model, maps, flip):
    size = 192
    large = AttributeMaps.from_model(model, make_chart(model, "cylindrical", 128))
    chosen, batch = make_batch(model, large, size)
    changes = Augmentation(rotation=40, scale=0.15, shift=0.06, flip=flip, brightness=0, tint=0, saturation=0)
    seen = augment_geometry(batch, changes, step_generator(0, 0), torch.eye(4))
    vertices = large.vertices((seen.identity_map + seen.expression_map).numpy())
    points = project(vertices, seen.parameters.pose.numpy(), seen.position.numpy())[..., :2]
    moved = 0
    for image, before, after in zip(seen.image.numpy(), batch.image.numpy(), points):
        for vertex in chosen:
            # after a flip the vertex on this side of the face is the twin of the one drawn
            found = after[model.mirror[vertex] if flip else vertex]
            assert np.linalg.norm(centre_of_spot(image[0], found) - found) < 0.1
        moved += np.abs(image - before).max() > 0.5
    assert moved == len(points)
    position = denormalise_position(seen.parameters.position, size)
    assert torch.allclose(position, seen.position, atol=1e-3)
    # nothing is written into the batch
    assert torch.equal(make_batch(model, large, size)[1].image, batch.image)


def test_landmarks_follow_the_image(model, maps):
    _, batch = make_batch(model, maps, SIZE)
    moves = dataclasses.replace(NO_AUGMENTATION, rotation=40, scale=0.1, shift=0.1)
    seen = augment_geometry(batch, moves, step_generator(0, 1), torch.eye(4))
    faces = [draw_face(model, SIZE, seed) for seed in range(6)]
    vertices = np.stack([model.shape(face["id_coeffs"], face["exp_coeffs"]) for face in faces])[:, model.landmarks]
    projected = project(vertices, seen.parameters.pose.numpy(), seen.position.numpy())[..., :2]
    np.testing.assert_allclose(projected, seen.landmarks, atol=1e-3)
    assert np.abs(projected - batch.landmarks.numpy()).max() > 3
    # the same points, mirrored, and in the order of the other side
    mirrored = augment_geometry(batch, dataclasses.replace(moves, flip=1.0), step_generator(0, 1), torch.eye(4))
    expected = seen.landmarks[:, list(LANDMARK_MIRROR)] * torch.tensor([-1, 1]) + torch.tensor([SIZE - 1, 0])
    assert torch.allclose(mirrored.landmarks, expected)


def test_landmark_order_of_the_other_side():
    order = np.array(LANDMARK_MIRROR)
    np.testing.assert_array_equal(order[order], np.arange(68))
    # Multi-PIE: jaw ends, brow ends, nose bridge and tip, eye corners, mouth corners, lip middles
    pairs = {0: 16, 8: 8, 17: 26, 21: 22, 27: 27, 30: 30, 31: 35, 33: 33, 36: 45, 39: 42, 37: 44, 41: 46, 48: 54,
             51: 51, 57: 57, 60: 64, 62: 62, 66: 66, 61: 63, 67: 65, 50: 52, 59: 55}
    for one, other in pairs.items():
        assert order[one] == other and order[other] == one


def test_light_follows_the_image(model, maps):
    _, batch = make_batch(model, maps, SIZE)
    changes = Augmentation(rotation=40, scale=0.1, shift=0.05, flip=1.0, brightness=0.3, tint=0, saturation=0)
    seen = augment_geometry(batch, changes, step_generator(0, 2), torch.eye(4))
    # a normal of the face and that of its twin on the mirrored face are shaded alike, up to the brightness
    normal = torch.nn.functional.normalize(torch.tensor([0.5, 0.3, 0.7]), dim=0)
    shading = []
    for placed, direction in ((batch, normal), (seen, normal * torch.tensor([-1.0, 1, 1]))):
        turned = rotation_matrix(placed.parameters.pose) @ direction
        shading.append((sh_basis(turned) * placed.parameters.light).sum(-1))
    gain = seen.parameters.light[:, 0] / batch.parameters.light[:, 0]
    assert ((gain - 1).abs() > 0.02).any() and ((gain - 1).abs() <= 0.3).all()
    torch.testing.assert_close(shading[1], shading[0] * gain, rtol=1e-4, atol=1e-4)
    grey = GeometryBatch(torch.full_like(batch.image, 0.5), *batch[1:])
    brighter = augment_geometry(grey, changes, step_generator(0, 2), torch.eye(4)).image
    torch.testing.assert_close(brighter.mean((1, 2, 3)), 0.5 * gain, rtol=1e-4, atol=1e-4)


def test_colour_changes_only_the_image(model, maps):
    _, batch = make_batch(model, maps, SIZE)
    colour = dataclasses.replace(NO_AUGMENTATION, tint=0.1, saturation=0.3)
    tinted = GeometryBatch(torch.rand(batch.image.shape), *batch[1:])
    seen = augment_geometry(tinted, colour, step_generator(0, 3), torch.eye(4))
    assert (seen.image - tinted.image).abs().max() > 0.03 and seen.image.min() >= 0 and seen.image.max() <= 1
    for ours, theirs in zip((*seen[1:3], *seen.parameters[:2]), (*batch[1:3], *batch.parameters[:2])):
        assert torch.equal(ours, theirs)
    torch.testing.assert_close(seen.position, batch.position, atol=1e-4, rtol=0)
    torch.testing.assert_close(seen.parameters.pose, batch.parameters.pose, atol=1e-5, rtol=0)


def test_no_change_is_the_identity(model, maps):
    _, batch = make_batch(model, maps, SIZE)
    seen = augment_geometry(batch, NO_AUGMENTATION, step_generator(0, 4), torch.eye(4))
    torch.testing.assert_close(seen.image, batch.image.clamp(0, 1), atol=1e-4, rtol=0)
    assert torch.equal(seen.identity_map, batch.identity_map)


def test_warp_of_known_transforms():
    image = torch.rand(1, 3, 9, 9)
    zero, one = torch.zeros(1), torch.ones(1)
    right = warp(image, similarity(zero, one, torch.tensor([[2.0, 1.0]]), 9))
    torch.testing.assert_close(right[..., 1:, 2:], image[..., :-1, :-2])
    torch.testing.assert_close(right[..., 1:, 0], image[..., :-1, 0])  # the border is repeated
    quarter = warp(image, similarity(one * math.pi / 2, one, torch.zeros(1, 2), 9))
    # clockwise as seen: the top row becomes the right column
    torch.testing.assert_close(quarter[..., :, -1], image[..., 0, :], atol=1e-4, rtol=0)


def test_dense_and_params_give_the_same_batches(model, maps, tmp_path):
    dense = FaceDataset(write_toy_asmd(tmp_path / "dense", model, 6, SIZE, "dense"))
    params = FaceDataset(write_toy_asmd(tmp_path / "params", model, 6, SIZE, "params"))
    batches = [GeometryPreparer(model, maps, d.attributes, CPU)(collate(d, range(6))) for d in (dense, params)]
    quantum = dense.attributes["quantum"]
    for key in ("identity_map", "expression_map"):
        from_dense, from_params = (getattr(batch, key) for batch in batches)
        assert (from_dense - from_params).abs().max() <= 0.5 * quantum + 3e-7  # and float32 rounding
        assert not torch.equal(from_dense, from_params)
    for key in ("image", "position", "landmarks"):
        assert torch.equal(getattr(batches[0], key), getattr(batches[1], key))
    truth = draw_face(model, SIZE, 2)
    np.testing.assert_allclose(batches[0].parameters.albedo[2], truth["albedo_coeffs"], rtol=1e-6)
    np.testing.assert_allclose(batches[0].parameters.pose[2], truth["pose"], rtol=1e-6)
    assert np.abs(batches[0].image[2].numpy().transpose(1, 2, 0) * 255 - truth["image"]).mean() < 2  # JPEG


def test_mirrored_albedo_is_that_of_the_mirrored_face(model):
    rng = np.random.default_rng(0)
    half = rng.standard_normal((3, len(model.mean_shape), 3))
    twin = half[:, model.mirror]
    symmetric = dataclasses.replace(  # a basis closed under mirroring: pairs of modes, mixed
        model, albedo_basis=np.einsum("ij,jvc->ivc", rng.standard_normal((6, 6)), [*half, *twin]).astype(np.float32),
        albedo_stddev=np.ones(6, np.float32),
    )
    coeffs = rng.standard_normal((2, 6))
    mirrored = (coeffs @ symmetric.albedo_basis.reshape(6, -1)).reshape(2, -1, 3)[:, model.mirror]
    found = (coeffs @ mirrored_albedo(symmetric) @ symmetric.albedo_basis.reshape(6, -1)).reshape(2, -1, 3)
    np.testing.assert_allclose(found, mirrored, atol=1e-3)
    untextured = dataclasses.replace(
        model, albedo_basis=np.zeros((0, len(model.mean_shape), 3), np.float32), albedo_stddev=np.zeros(0, np.float32)
    )
    assert mirrored_albedo(untextured).shape == (0, 0)
