"""A state that moves by its outputs, as Euler's does, in numbers that a reader can follow."""

import pytest
import torch

from comfyui_omnicache.omnicache.correction import Correction, Corrector
from comfyui_omnicache.omnicache.euler_notice import EulerNotice
from comfyui_omnicache.omnicache.output_run import OutputRun
from comfyui_omnicache.omnicache.plan import Plan
from comfyui_omnicache.omnicache.repay import Repay
from comfyui_omnicache.omnicache.response import Response
from comfyui_omnicache.omnicache.sampling_run import Asked
from comfyui_omnicache.omnicache.trail import MOST_STAGES, Trail

SIGMAS = [1.0, 0.8, 0.6, 0.4, 0.2, 0.0]
AXIS = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
SHAPE = (1, 1, 2, 2)


def full(value: float) -> torch.Tensor:
    return torch.full(SHAPE, value, dtype=torch.float64)


def seen(trail: Trail, step: int, value: float, is_reused: bool) -> None:
    """One step with one evaluation."""
    trail.see(full(value), full(SIGMAS[step]), is_reused)


def paid(values: list[tuple[float, bool]], response: Response | None = None, **options) -> tuple[Trail, list]:
    """The trail after steps of these outputs, and what was due at each."""
    trail = Trail(keeps_reused=True)
    repay = Repay(AXIS, SIGMAS, response or Response.of_euler(SIGMAS), **options)
    changes = []
    for step, (value, is_reused) in enumerate(values):
        seen(trail, step, value, is_reused)
        changes.append(repay.due(trail, step))
        trail.next_step(step)
    return trail, changes


def test_a_quadratic_output_is_repaid_exactly_but_for_the_share_that_keeps_the_estimate():
    """Outputs 0, 1, 4, 9 over the steps' numbers; step 2 was taken for 2 in place of 4. Its step is -0.2
    long, so the state is -0.2 (4 - 2) = -0.4 off. Step 3 has a weight of 1/3 in the parabola at step 2
    (through 0, 1, 3), so of the 0.4 a share of 1 / (1 + 0.2 / 3 / 0.4) = 6/7 is paid."""
    _, changes = paid([(0, False), (1, False), (2, True), (9, False)])
    assert changes[:3] == [None, None, None]
    assert changes[3] == pytest.approx(full(-0.4 * 6 / 7))


def test_the_change_is_that_of_the_output_read_again_at_the_new_state():
    """Step 3's output 9 becomes 9 + delta / 0.4. With it in the parabola, the same change comes out in
    full."""
    trail, changes = paid([(0, False), (1, False), (2, True), (9, False)])
    again = trail.combined((1.0,), stage=0)
    assert again == pytest.approx(9 + changes[3] / 0.4)
    at_step_2 = -1 / 3 * 0 + 1 * 1 + 1 / 3 * again  # Lagrange weights of steps 0, 1, 3 at 2
    assert changes[3] == pytest.approx(-0.2 * (at_step_2 - 2))


def test_several_reused_steps_are_paid_together():
    _, changes = paid([(0, False), (1, False), (2, True), (3, True), (16, False)])
    feedback = 0.2 * (1 / 6 + 1 / 2) / 0.2  # weights of step 4 at 2 and 3, in a parabola through 0, 1, 4
    assert changes[4] == pytest.approx(full(-0.2 * ((4 - 2) + (9 - 3)) / (1 + feedback)))


def test_with_two_computed_steps_it_is_a_line():
    _, changes = paid([(0, False), (5, True), (4, False)])
    assert changes[2] == pytest.approx(full(-0.2 * (2 - 5) / (1 + 0.2 / 2 / 0.6)))


def test_nothing_reused_adds_nothing():
    assert paid([(value, False) for value in range(5)])[1] == [None] * 5


def test_the_strength_scales_what_is_added():
    outputs = [(0, False), (1, False), (2, True), (9, False)]
    assert paid(outputs, strength=0.5)[1][3] == pytest.approx(0.5 * paid(outputs)[1][3])


def test_a_filter_sees_each_change_and_its_step():
    steps = []

    def half(change, step):
        steps.append(step)
        return change * 0.5

    outputs = [(0, False), (1, False), (2, True), (9, False)]
    assert paid(outputs, filtered=half)[1][3] == pytest.approx(0.5 * paid(outputs)[1][3])
    assert steps == [3]


def test_an_output_beyond_a_jump_is_not_compared_with_those_before():
    trail = Trail(keeps_reused=True)
    repay = Repay(AXIS, SIGMAS, Response.of_euler(SIGMAS))
    for step, is_reused in enumerate((False, False, True)):
        seen(trail, step, 1.0, is_reused)
        trail.next_step(step)
    trail.start_anew()
    seen(trail, 3, 100.0, False)
    assert repay.due(trail, 3) is None and trail.steps_of(0) == (3,)


def test_a_state_that_nothing_goes_on_from_is_left_alone():
    euler = Response.of_euler(SIGMAS)
    unused = Response("reported", euler.outputs, torch.tensor([1, 1, 1, 0, 0]).numpy(), euler.scales)
    trail, changes = paid([(0, False), (1, False), (2, True), (9, False)], unused)
    assert changes[3] is None and trail.combined((1.0,), stage=0) == pytest.approx(full(9.0))


def test_a_state_in_other_units_is_moved_in_these():
    """As uni_pc has it: the held state is half of what is evaluated."""
    euler = Response.of_euler(SIGMAS)
    halved = Response("reported", euler.outputs, euler.states * 2, euler.scales * 2)
    outputs = [(0, False), (1, False), (2, True), (9, False)]
    trail, changes = paid(outputs, halved)
    usual_trail, usual = paid(outputs)
    assert changes[3] == pytest.approx(usual[3] / 2)
    assert trail.combined((1.0,), stage=0) == pytest.approx(usual_trail.combined((1.0,), stage=0))


def test_a_sampler_that_goes_back_is_not_repaid():
    trail = Trail(keeps_reused=True)
    repay = Repay([0.0, 1.0, 0.5, 0.7, 2.0], SIGMAS, Response.of_euler(SIGMAS))
    for step, is_reused in enumerate((False, False, True, False)):
        seen(trail, step, 1.0, is_reused)
        assert repay.due(trail, step) is None
        trail.next_step(step)


def test_a_sampler_that_never_reports_fills_no_memory():
    trail = Trail(keeps_reused=True)
    for _ in range(100):
        seen(trail, 0, 1.0, False)
    assert trail.nbytes == MOST_STAGES * full(0.0).nbytes


def test_a_sampler_is_taken_for_euler_after_two_of_its_steps_and_not_after_another():
    def noticed(states: list[float]) -> list[bool]:
        """Outputs of 1: Euler's states are 0, -0.2, -0.4, ..."""
        notice, seen = EulerNotice(SIGMAS), []
        for step, state in enumerate(states):
            notice.evaluated(full(state), full(1.0))
            seen.append(notice.is_euler)
            notice.reported(step, full(state))
        return seen

    assert noticed([0.0, -0.2, -0.4, -0.6]) == [False, False, True, True]
    assert noticed([0.0, -0.2, -0.4, -0.7, -0.9]) == [False, False, True, False, False]
    assert noticed([0.0, -0.3, -0.5, -0.7, -0.9]) == [False] * 5


def test_a_state_of_another_shape_is_not_eulers():
    notice = EulerNotice(SIGMAS)
    notice.evaluated(full(0.0), full(1.0))
    notice.reported(0, full(0.0))
    notice.evaluated(torch.zeros(1, 1, 4, 4), full(1.0))
    notice.reported(1, torch.zeros(1, 1, 4, 4))
    assert not notice.is_euler


def euler(outputs, mask: str, **correction) -> tuple[torch.Tensor, "OutputRun"]:
    """Samples from a state of 0 with a model whose output at sigma is outputs(sigma), whatever the state."""
    corrector = Corrector(Correction(**correction), SIGMAS, None, 0.5, AXIS)
    repay = (
        Repay(AXIS, SIGMAS, Response.of_euler(SIGMAS), corrector.correction.repay)
        if corrector.correction.repays
        else None
    )
    run = OutputRun(Plan.of([step == "r" for step in mask]), corrector, repay)
    x, calls = full(0.0), 0
    for step, (sigma, following) in enumerate(zip(SIGMAS, SIGMAS[1:], strict=False)):

        def forward(x=x, sigma=sigma):
            nonlocal calls
            calls += 1
            return x - sigma * outputs(sigma)

        denoised = run.predict(Asked(forward, x, torch.tensor([sigma], dtype=torch.float64)))
        output = (x - denoised) / sigma
        change = run.due(step, x)
        if change is not None:
            x = x + change
        run.step_finished(step)
        x = x + output * (following - sigma)
    assert calls == mask.count("F")
    return x, run


def line(sigma: float) -> float:
    return 5 * (1 - sigma)  # the step's number


@pytest.mark.parametrize("mask", ["FFFFF", "FFrFr", "FFrrF", "FFrrr"])
def test_a_run_above_the_model_is_exact_where_the_output_is_a_line(mask):
    x, run = euler(line, mask)
    assert x == pytest.approx(full(-0.2 * (0 + 1 + 2 + 3 + 4)))
    assert run.close().step_kinds == {
        step: "full" if kind == "F" else "reuse" for step, kind in enumerate(mask)
    }


def test_repay_brings_a_curved_run_nearer():
    true, _ = euler(lambda sigma: line(sigma) ** 3, "FFFFF")
    near, far = (euler(lambda sigma: line(sigma) ** 3, "FFrFF", repay=repay)[0] for repay in (1.0, 0.0))
    assert (near - true).abs().max() < 0.5 * (far - true).abs().max()


def test_the_report_has_the_share_of_the_state_that_was_put_right():
    _, run = euler(lambda sigma: line(sigma) ** 2, "FFrFF")
    # Step 2 is forecast by the line through 0 and 1, as 2 in place of 4; the state at step 3 is -0.2 (0 + 1
    # + 2).
    assert run.close().repaid == {3: pytest.approx(0.4 * 6 / 7 / 0.6)}


def test_an_evaluation_whose_parts_the_sampler_reads_is_computed():
    run = OutputRun(Plan.of([False, False, True]), Corrector(Correction(), SIGMAS, None, 0.5, AXIS), None)
    calls = []
    for step in range(3):
        asked = Asked(
            lambda: calls.append(1) or full(0.0), full(1.0), torch.tensor([SIGMAS[step]]), reads_parts=True
        )
        run.predict(asked)
        run.step_finished(step)
    assert len(calls) == 3 and "parts of guidance" in next(iter(run.close().notes))


def test_what_acts_beside_the_model_is_not_forecast_over_its_change():
    run = OutputRun(
        Plan.of([False, False, True, True]), Corrector(Correction(), SIGMAS, None, 0.5, AXIS), None
    )
    calls = []
    for step, beside in enumerate(("a", "a", "b", "b")):
        run.predict(
            Asked(lambda: calls.append(1) or full(0.0), full(1.0), torch.tensor([SIGMAS[step]]), beside)
        )
        run.step_finished(step)
    assert len(calls) == 4


def test_a_changed_shape_starts_anew():
    run = OutputRun(Plan.of([False, False, True]), Corrector(Correction(), SIGMAS, None, 0.5, AXIS), None)
    calls = []
    for step, size in enumerate((2, 2, 4)):
        x = torch.ones(1, 1, size, size)
        run.predict(Asked(lambda x=x: calls.append(1) or x, x, torch.tensor([SIGMAS[step]])))
        run.step_finished(step)
    assert len(calls) == 3
