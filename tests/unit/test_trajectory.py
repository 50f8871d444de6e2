import numpy as np
import pytest
import torch

from comfyui_omnicache.omnicache.trajectory import GramRecorder, geometry, menger_curvature, turning_angle


def circle(count: int, radius: float, dimensions: int = 7) -> np.ndarray:
    """Points on a circle in a tilted plane of a larger space."""
    angles = np.linspace(0, np.pi / 2, count)
    plane = np.linalg.qr(np.random.default_rng(0).standard_normal((dimensions, 2)))[0]
    return np.column_stack((np.cos(angles), np.sin(angles))) @ plane.T * radius


def test_a_straight_line_does_not_turn():
    points = np.outer(np.arange(6.0), [1.0, 2.0, 3.0])
    assert np.allclose(turning_angle(points)[1:-1], 0.0)
    assert np.allclose(menger_curvature(points)[1:-1], 0.0)


def test_a_right_angle_turns_by_half_pi():
    points = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 2.0]])
    assert turning_angle(points)[1] == pytest.approx(np.pi / 2)


def test_a_reversal_turns_by_pi():
    assert turning_angle(np.array([[0.0], [1.0], [0.0]]))[1] == pytest.approx(np.pi)


def test_tiny_angles_keep_their_digits():
    points = np.array([[0.0, 0.0], [1.0, 0.0], [2.0, 1e-9]])
    assert turning_angle(points)[1] == pytest.approx(1e-9, rel=1e-6)


def test_menger_curvature_of_a_circle_is_one_over_its_radius():
    assert np.allclose(menger_curvature(circle(9, radius=4.0))[1:-1], 0.25)


def test_turning_angles_of_a_circle_are_equal_and_add_up():
    angles = turning_angle(circle(10, radius=4.0))
    assert np.allclose(angles[1:-1], np.pi / 2 / 9)
    assert np.isnan(angles[[0, -1]]).all()


def test_the_turning_angle_ignores_scale_and_menger_curvature_does_not():
    small, large = circle(5, 1.0), circle(5, 10.0)
    assert np.allclose(turning_angle(small)[1:-1], turning_angle(large)[1:-1])
    assert np.allclose(menger_curvature(small)[1:-1], 10 * menger_curvature(large)[1:-1])


def test_a_curve_in_three_dimensions_is_recovered_from_its_gram_matrix():
    points = circle(12, radius=3.0, dimensions=40)
    projected = geometry(points @ points.T)
    assert projected.explained == pytest.approx(1.0)
    distances = np.linalg.norm(points[:, None] - points[None], axis=2)
    kept = np.linalg.norm(projected.coordinates[:, None] - projected.coordinates[None], axis=2)
    assert np.allclose(kept, distances, atol=1e-9)
    assert np.allclose(projected.coordinates[-1], 0.0)
    assert projected.coordinates[0, 0] == pytest.approx(distances[0, -1])


def test_a_trajectory_that_returns_to_its_start_has_no_axis():
    with pytest.raises(ValueError, match="start|first"):
        geometry(np.ones((4, 4)))


def test_the_recorder_gives_the_inner_products_of_each_trajectory():
    states = torch.randn(5, 2, 3, 4, dtype=torch.float64).float()  # steps, batch, ...
    recorder = GramRecorder()
    for state in states:
        recorder.add(state)
    flat = states.double().flatten(2)
    for row in range(2):
        assert np.allclose(recorder.grams()[row], (flat[:, row] @ flat[:, row].T).numpy())


def test_the_recorder_keeps_its_own_copy():
    recorder, state = GramRecorder(), torch.ones(1, 4)
    recorder.add(state)
    state.zero_()
    recorder.add(torch.ones(1, 4))
    assert recorder.grams()[0, 0, 1] == 4.0
