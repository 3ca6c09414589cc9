"""Crops: what must hold for any photo and any square."""

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from asmgen.crop import LARGEST, MARGIN, RISE, crop_image, face_square, placement_in_photo, square_transform
from bfm.pose import transform_placement, transform_points

squares = st.tuples(st.integers(-300, 300), st.integers(-300, 300), st.integers(1, 900))
sizes = st.integers(1, 300)
positions = st.tuples(st.floats(-500, 500), st.floats(-500, 500), st.floats(0.01, 50)).map(np.array)
pictures = hnp.arrays(np.uint8, (7, 9, 3))


@given(squares, sizes)
def test_the_transform_takes_quarters_of_the_square_to_quarters_of_the_crop(square, size):
    (left, top, side), quarters = square, np.array([[0.25, 0.25], [0.25, 0.75], [0.75, 0.25]])
    found = transform_points(quarters * side + [left, top] - 0.5, square_transform(square, size))
    np.testing.assert_allclose(found, quarters * size - 0.5, atol=1e-9 * size)


@given(squares, sizes, hnp.arrays(np.float64, 3, elements=st.floats(-1.5, 1.5)), positions)
def test_a_placement_taken_to_the_crop_and_back_is_itself(square, size, pose, position):
    placed = transform_placement(pose, position, square_transform(square, size))
    for back, wanted in zip(placement_in_photo(*placed, square, size), (pose, position)):
        np.testing.assert_allclose(back, wanted, rtol=1e-9, atol=1e-6)


@given(hnp.arrays(np.float64, (68, 2), elements=st.floats(-500, 500)))
def test_the_square_is_about_the_landmarks_to_a_pixel(landmarks):
    extent = np.ptp(landmarks, axis=0).max()
    assume(extent > 3)
    left, top, side = face_square(landmarks)
    assert abs(side - MARGIN * extent) <= 0.5
    middle = (landmarks.min(axis=0) + landmarks.max(axis=0)) / 2 + 0.5 - [0, RISE * extent]
    assert np.abs(np.array([left, top]) + side / 2 - middle).max() <= 0.5


@settings(max_examples=150)
@given(hnp.array_shapes(min_dims=2, max_dims=2, max_side=70), hnp.arrays(np.uint8, 3), squares, sizes)
def test_one_colour_stays_itself_wherever_the_square_is(shape, colour, square, size):
    """Also beyond the photo, whose edge is repeated; a square that does not meet it is an error."""
    image = np.ascontiguousarray(np.broadcast_to(colour, (*shape, 3)))
    (left, top, side), (height, width) = square, shape
    meets = -side < left < width and -side < top < height and side <= 8 * max(shape)
    try:
        crop = crop_image(image, square, size)
    except ValueError as error:
        assert not meets and ("lies outside" in str(error) or "over eight times" in str(error))
    else:
        assert meets and crop.dtype == np.uint8
        np.testing.assert_array_equal(crop, np.broadcast_to(colour, (size, size, 3)))


@settings(max_examples=150)
@given(
    st.floats(-1, 1), st.floats(-1, 1), st.floats(0, 1), st.floats(0, 1), st.integers(8, 80), st.integers(4, 60),
)
def test_a_linear_photo_stays_linear(along_x, along_y, left, top, side, size):
    """Each pixel of the crop has the colour of its place in the photo, whether the crop shrinks or grows."""
    square = (40 + int(left * (80 - side)), 40 + int(top * (80 - side)), side)  # with what the filter reaches

    def colour(x, y):
        return 127 + 0.8 * along_x * (x - 80) + 0.7 * along_y * (y - 80)

    rows, columns = np.mgrid[:160, :160]
    crop = crop_image(np.dstack([np.round(colour(columns, rows))] * 3).astype(np.uint8), square, size)
    rows, columns = np.mgrid[:size, :size]
    transform = square_transform(square, size)
    x, y = ((at - transform[axis, 2]) / transform[0, 0] for axis, at in enumerate((columns, rows)))
    # rounded are the photo, averages, taps and what is read between them
    np.testing.assert_allclose(crop[..., 0], colour(x, y), atol=2.1)


@given(pictures, st.integers(-9, 9), st.integers(-9, 9), st.integers(4, 40), st.integers(1, 40))
def test_pixels_lie_between_those_of_the_photo(image, left, top, side, size):
    assume(left + side > 0 and top + side > 0 and left < 9 and top < 7)
    crop = crop_image(image, (left, top, side), size)
    assert (crop >= image.min(axis=(0, 1))).all() and (crop <= image.max(axis=(0, 1))).all()


@given(pictures, st.integers(0, 5), st.integers(0, 5), st.integers(1, 9), st.integers(1, 30))
def test_a_mirrored_or_turned_photo_gives_the_crop_mirrored_or_turned(image, left, top, side, size):
    crop = crop_image(image, (left, top, side), size).astype(int)
    mirrored = crop_image(np.ascontiguousarray(image[:, ::-1]), (9 - left - side, top, side), size)
    turned = crop_image(np.ascontiguousarray(image.transpose(1, 0, 2)), (top, left, side), size)
    assert np.abs(crop - turned.transpose(1, 0, 2)).max() <= 2  # roundings between the two axes
    if side <= size:  # else pixels are averaged from the left on
        assert np.abs(crop - mirrored[:, ::-1]).max() <= 2


def test_no_square_takes_much_memory():
    """A square as large as the photo allows would be 17 GB where the photo has 90 million pixels."""
    image = np.broadcast_to(np.uint8(9), (9000, 9000, 3))
    try:
        crop_image(image, (-20_000, -20_000, LARGEST + 50_000), 64)
    except ValueError as error:
        assert str(error).endswith(f"is over {LARGEST} pixels wide; make the photo smaller")
    else:
        raise AssertionError("it was cut out")
