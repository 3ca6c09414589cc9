"""Analysis by synthesis on toy faces that are known: what it recovers, and what it must leave alone."""

import numpy as np
import pytest
import torch

from asmgen.maps import AttributeMaps
from bfm.charts import make_chart
from model.dual_stream import Face, draw_face
from model.geometry import Parameters, denormalise_position, normalise_position
from model.refine import placed_by_landmarks, refine
from model.render import FaceRenderer
from toy import toy_model

SIZE = 64


@pytest.fixture(scope="module")
def toy():
    """The toy model's face part, its maps, and a renderer with a camera 800 mm away."""
    model = toy_model(41, 33).face_only()
    maps = AttributeMaps.from_model(model, make_chart(model, "cylindrical", SIZE))
    return model, maps, FaceRenderer(model, maps, 800.0)


def drawn_faces(toy, count: int = 2):
    """Photos, landmarks and faces, true and disturbed; skin with spots that no mode has."""
    model, maps, renderer = toy
    rng = np.random.default_rng(5)
    id_coeffs, exp_coeffs = (
        rng.standard_normal((count, len(basis))).astype(np.float32) for basis in (model.id_basis, model.exp_basis)
    )
    u, v = np.meshgrid(np.linspace(0, 20, SIZE), np.linspace(0, 20, SIZE))
    spots = 0.08 * np.sin(u) * np.sin(v) * maps.chart.mask
    linear = torch.tensor(maps.chart.unwrap(model.mean_albedo)).expand(count, -1, -1, -1)
    light = torch.tensor([3.2, 0.5, 0.4, 0.6, 0, 0.1, 0, -0.1, 0]).expand(count, -1)
    pose = torch.tensor(rng.uniform(-0.3, 0.3, (count, 3)), dtype=torch.float32)
    position = normalise_position(torch.tensor([[32.0, 32.0, 0.25]]).repeat(count, 1), SIZE)
    coeffs = torch.zeros(count, len(model.albedo_basis))
    truth = Face(
        torch.tensor(maps.identity_map(id_coeffs)), torch.tensor(maps.expression_map(exp_coeffs)),
        linear + torch.tensor(spots, dtype=torch.float32), Parameters(coeffs, light, pose, position),
    )
    start = Face(
        torch.tensor(maps.identity_map(0.3 * id_coeffs)), torch.tensor(maps.expression_map(0.3 * exp_coeffs)), linear,
        Parameters(
            coeffs, light + torch.tensor([0.3, -0.2, 0, -0.2, 0, 0, 0, 0, 0]), pose + torch.tensor([0.05, -0.06, 0.04]),
            position + torch.tensor([0.03, -0.04, 0.03]),
        ),
    )
    picture = draw_face(renderer, truth)
    image = torch.where(picture.mask, picture.image.clamp(0, 1), torch.full_like(picture.image, 0.5))
    return image, picture.landmarks, truth, start


def shape_error(renderer, face, truth) -> torch.Tensor:
    """(B,) mm."""
    ours, theirs = (renderer.vertices(some.identity_map + some.expression_map) for some in (face, truth))
    return (ours - theirs).norm(dim=-1).mean(1)


def test_pose_light_shape_and_albedo_are_recovered(toy):
    model, maps, renderer = toy
    image, landmarks, truth, start = drawn_faces(toy)
    refined = refine(start, image, renderer, 60, maps=maps, landmarks=landmarks)
    face = refined.face
    assert (refined.after < 0.25 * refined.before).all() and (refined.after < 0.03).all()
    wrong, begun = (shape_error(renderer, some, truth) for some in (face, start))
    assert (wrong < 2 / 3 * begun).all() and wrong.mean() < 0.5 * begun.mean()
    turned, begun = ((some.parameters.pose - truth.parameters.pose).norm(dim=1) for some in (face, start))
    assert (turned < 0.5 * begun).all()
    brightness = face.parameters.light[:, 0] * face.albedo_map.mean((1, 2, 3))
    expected = truth.parameters.light[:, 0] * truth.albedo_map.mean((1, 2, 3))
    torch.testing.assert_close(brightness, expected, rtol=0.05, atol=0)
    inside = torch.tensor(maps.chart.mask)
    spots, found = (
        (some.albedo_map - start.albedo_map).mean(1)[:, inside] for some in (truth, face)
    )
    assert torch.corrcoef(torch.stack([spots[0], found[0]]))[0, 1] > 0.5
    # colours and offsets stay in the chart
    assert not face.albedo_map[:, :, ~inside].any() and not face.identity_map[:, :, ~inside].any()
    assert not any(value.requires_grad for value in (*face[:3], *face.parameters))


def test_landmarks_turn_a_face_that_is_far_off(toy):
    model, maps, renderer = toy
    image, landmarks, truth, _ = drawn_faces(toy)
    away = truth._replace(parameters=truth.parameters._replace(
        pose=truth.parameters.pose + torch.tensor([0.2, 1.2, -0.3]),
        position=truth.parameters.position + torch.tensor([0.4, -0.3, 0.5]),
    ))
    found = placed_by_landmarks(away, landmarks, renderer)
    torch.testing.assert_close(found.parameters, truth.parameters, atol=1e-4, rtol=0)
    refined = refine(away, image, renderer, 2, maps=maps, landmarks=landmarks)
    assert (refined.after < 0.02).all() and (refined.before > 0.05).all()


@pytest.mark.parametrize("landmarks", ["near", "at one point", "of a face ten times smaller"])
def test_landmarks_leave_a_face_where_it_is_if_that_is_near_or_the_other_place_absurd(toy, landmarks):
    model, maps, renderer = toy
    _, _, _, start = drawn_faces(toy)
    wanted = draw_face(renderer, start).landmarks + 2
    if landmarks == "at one point":
        wanted[:] = 7.0
    elif landmarks == "of a face ten times smaller":
        wanted /= 10
    found = placed_by_landmarks(start, wanted, renderer)
    torch.testing.assert_close(found, start, rtol=0, atol=0)


def test_errors_are_those_of_the_faces(toy):
    model, maps, renderer = toy
    image, landmarks, _, start = drawn_faces(toy)
    refined = refine(start, image, renderer, 3, maps=maps, landmarks=landmarks)
    for face, reported in ((start, refined.before), (refined.face, refined.after)):
        picture = draw_face(renderer, face)
        for one in range(2):
            mask = picture.mask[one, 0]
            difference = (picture.image[one].clamp(0, 1) - image[one]).abs()[:, mask]
            assert difference.mean() == pytest.approx(reported[one].item(), rel=1e-5)


def test_no_step_changes_nothing_and_the_input_is_left_alone(toy):
    model, maps, renderer = toy
    image, landmarks, _, start = drawn_faces(toy)
    refined = refine(start, image, renderer, 0, maps=maps)
    assert refined.face is start and torch.equal(refined.before, refined.after)
    copies = [value.clone() for value in (*start[:3], *start.parameters)]
    refine(start, image, renderer, 5, maps=maps, landmarks=landmarks)
    assert all(torch.equal(a, b) for a, b in zip(copies, (*start[:3], *start.parameters)))


def test_photos_of_a_batch_do_not_influence_each_other(toy):
    model, maps, renderer = toy
    image, landmarks, _, start = drawn_faces(toy, 3)
    torch.manual_seed(0)
    together = refine(start, image, renderer, 8, maps=maps, landmarks=landmarks)
    again = refine(start, image, renderer, 8, maps=maps, landmarks=landmarks)
    assert torch.equal(together.after, again.after)  # and nothing is drawn at random

    def of(some, one):
        return Face(*(value[one:one + 1] for value in some[:3]), Parameters(*(v[one:one + 1] for v in some.parameters)))

    for one in range(3):
        alone = refine(
            of(start, one), image[one:one + 1], renderer, 8, maps=maps, landmarks=landmarks[one:one + 1]
        ).face
        theirs = of(together.face, one)
        for a, b in zip((*alone[:3], *alone.parameters), (*theirs[:3], *theirs.parameters)):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-4)


def test_it_works_where_gradients_are_off_and_without_landmarks(toy):
    model, maps, renderer = toy
    image, _, _, start = drawn_faces(toy)
    with torch.no_grad():
        refined = refine(start, image, renderer, 20, maps=maps)
    assert (refined.after < 0.7 * refined.before).all()


def test_no_albedo_is_brighter_than_white(toy):
    model, maps, renderer = toy
    image, landmarks, _, start = drawn_faces(toy)
    white = start._replace(albedo_map=0.999 * torch.tensor(maps.chart.mask).float().expand(2, 3, -1, -1))
    dim = white._replace(parameters=white.parameters._replace(light=0.8 * start.parameters.light))
    refined = refine(dim, torch.ones_like(image), renderer, 10, maps=maps, landmarks=landmarks)
    assert refined.face.albedo_map.max() == 1


class HalfHidden(torch.nn.Module):
    """Face parsing to which the left half of every image is hair."""

    def face_mask(self, image: torch.Tensor) -> torch.Tensor:
        """The right half."""
        mask = torch.ones_like(image[:, :1], dtype=torch.bool)
        mask[..., : image.shape[-1] // 2] = False
        return mask


def test_what_hides_the_face_counts_for_nothing(toy):
    model, maps, renderer = toy
    image, landmarks, _, start = drawn_faces(toy)
    painted = image.clone()
    painted[..., : SIZE // 2] = torch.rand(3, SIZE, SIZE // 2, generator=torch.Generator().manual_seed(1))
    ours, theirs = (
        refine(start, photo, renderer, 10, maps=maps, landmarks=landmarks, parsing=HalfHidden())
        for photo in (image, painted)
    )
    assert torch.equal(ours.before, theirs.before) and torch.equal(ours.after, theirs.after)
    assert torch.equal(ours.face.albedo_map, theirs.face.albedo_map)


class MeanColour(torch.nn.Module):
    """A recogniser that knows people by the colours of three parts of the crop."""

    def forward(self, crop: torch.Tensor) -> torch.Tensor:
        """(B, 9)."""
        return torch.nn.functional.adaptive_avg_pool2d(crop, (1, 3)).flatten(1)


def test_the_identity_loss_takes_part(toy):
    model, maps, renderer = toy
    image, landmarks, _, start = drawn_faces(toy)
    without = refine(start, image, renderer, 4, maps=maps, landmarks=landmarks)
    given = refine(start, image, renderer, 4, maps=maps, landmarks=landmarks, identity=MeanColour())
    assert not torch.equal(without.face.parameters.light, given.face.parameters.light)
    with pytest.raises(ValueError, match="needs landmarks to place its crop"):
        refine(start, image, renderer, 4, maps=maps, identity=MeanColour())
    with pytest.raises(ValueError, match="steps must be at least 0, got -1"):
        refine(start, image, renderer, -1, maps=maps)


def test_the_refined_landmarks_come_to_those_given(toy):
    model, maps, renderer = toy
    image, landmarks, truth, start = drawn_faces(toy)
    blind = torch.full_like(image, 0.5)  # nothing to see: the landmarks alone place the face
    face = refine(start, blind, renderer, 60, maps=maps, landmarks=landmarks).face

    def error(some):
        position = denormalise_position(some.parameters.position, SIZE)
        vertices = renderer.vertices(some.identity_map + some.expression_map)
        return (renderer.project_landmarks(vertices, some.parameters.pose, position) - landmarks).norm(dim=-1).mean()

    assert error(face) < 0.5 * error(start)
