/** Payloads as the nodes send them, for the tests. */

/**
 * @param {number} count steps
 * @param {object} [changes] keys to replace
 */
export function schedulePayload(count, changes = {}) {
  const steps = Array.from({ length: count }, (_, step) => step);
  const reused = steps.map((step) => step > 1 && step < count - 1 && step % 2 === 0);
  return {
    ...profilePayload(count),
    kind: "schedule",
    reused,
    full: reused.filter((value) => !value).length,
    speedup: 1.87,
    ...changes,
  };
}

/**
 * @param {number} count steps
 * @param {object} [changes] keys to replace
 */
export function profilePayload(count, changes = {}) {
  const steps = Array.from({ length: count }, (_, step) => step);
  return {
    kind: "profile",
    title: `sd3 · euler · ${count} steps`,
    sigmas: steps.map((step) => 1 - step / count),
    timesteps: steps.map((step) => 1000 * (1 - step / count)),
    curvature: steps.map((step) => (step === 0 ? null : 0.02 + 0.03 * Math.sin(step) ** 2)),
    curvature_sd: steps.map(() => 0.002),
    gamma: steps.map((step) => (step < 2 ? null : 1 + 0.2 * Math.cos(step))),
    noise: steps.map((step) => (step === 0 ? null : 0.04)),
    reused: null,
    full: count,
    asked: count,
    speedup: null,
    note: null,
    ...changes,
  };
}

/** Values that are not data. */
export const JUNK = [
  undefined,
  null,
  NaN,
  Infinity,
  -Infinity,
  "7",
  "<b>",
  {},
  [],
  true,
  1e308,
  -1e308,
  1e-320,
];

/** Of ten steps, four reused; odd steps and later ones cost more. */
export function replannablePayload(changes = {}) {
  const count = 10;
  const steps = Array.from({ length: count }, (_, step) => step);
  const byDistance = Array.from({ length: count * 4 }, (_, index) => {
    const [step, distance] = [Math.floor(index / 4), (index % 4) + 1];
    return (0.01 + 0.01 * (step % 2) + 0.001 * step) * distance ** 2;
  });
  const table = { distances: 4, gaps: 1, values: byDistance };
  return schedulePayload(count, {
    reused: steps.map((step) => step > 1 && step % 2 === 0),
    speedup: 1.64,
    error: 0.0564,
    log_snr: steps.map((step) => step - 5),
    path: steps.map((step) => [step, Math.sin(step), step ** 2]),
    settings: {
      saved_profile: "one.json",
      budget_kind: "reuse ratio",
      budget: 0.4,
      cost: "curvature",
      max_consecutive: 0,
      protect_first: 2,
      protect_last: 1,
      overrides: "",
    },
    replan: {
      reuse_cost: 0.02,
      curvature: table,
      error: table,
      axis: [...steps, count].map((step) => step - 5),
      lengths: steps.map(() => 0.1),
      way: 1,
    },
    ...changes,
  });
}
