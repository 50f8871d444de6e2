/**
 * What the node would plan for other inputs than it was run with: the rules of omnicache/schedule.py, to
 * the last bit. tests/plan_vectors.json keeps the two equal.
 */

import {
  FIRST_FULL,
  UNMEASURED,
  costOf,
  errorOf,
  parseOverrides,
  roomOf,
  solve,
  speedupOf,
} from "./plan.js";

const BUDGETS = { "reuse ratio": [0, 1], "speed-up": [1, 100], "full steps": [1, 10000] };

/**
 * @typedef {object} Settings inputs of CurvatureScheduler, by their names
 * @property {string} saved_profile
 * @property {string} budget_kind
 * @property {number} budget
 * @property {string} cost
 * @property {number} max_consecutive
 * @property {number} protect_first
 * @property {number} protect_last
 * @property {string} overrides
 *
 * @typedef {{ distances: number, gaps: number, values: number[] }} Table of costs, made by nodes/plot.py
 *
 * @typedef {object} Replan what a plan is made of, whatever the settings
 * @property {number} reuseCost time of a reuse evaluation over that of a full one
 * @property {number} way sum of all lengths
 * @property {Table} curvature turning angles
 * @property {Table} error of reuse, as it is before repay
 * @property {number[]} lengths of the steps, see noise_axis.py
 * @property {number[]} axis place of each step and of the end, on which a plan measures distances (noise_axis.py)
 */

/**
 * @param {number} steps
 * @param {Replan} replan
 * @param {Settings} settings
 * @returns {{ reused: boolean[], speedup: number, error: number | null }}
 * @throws {Error} if no plan meets the settings, in the words of the node
 */
export function replanned(steps, replan, settings) {
  const constraints = {
    maxConsecutive: settings.max_consecutive,
    protectFirst: settings.protect_first,
    protectLast: settings.protect_last,
    ...parseOverrides(settings.overrides),
  };
  const wanted = reusedSteps(settings, steps, replan.reuseCost);
  const cost = costFor(settings.cost, steps, wanted, constraints, replan);
  const reused = solve(steps, wanted, constraints, cost);
  return {
    reused,
    speedup: speedupOf(reused, replan.reuseCost),
    error: errorOf(reused, errorAfterRepay(replan), replan.way),
  };
}

/**
 * How many of so many steps a budget reuses.
 * @param {Pick<Settings, "budget_kind" | "budget">} settings
 * @param {number} steps
 * @param {number} reuseCost
 */
export function reusedSteps({ budget_kind: kind, budget }, steps, reuseCost) {
  const [low, high] = known("budget_kind", kind, BUDGETS);
  if (!(budget >= low && budget <= high)) {
    throw new Error(`budget: ${budget} is out of range; a ${kind} lies between ${low} and ${high}.`);
  }
  if (kind === "reuse ratio") return roundedToEven(budget * steps);
  if (kind === "speed-up" && reuseCost >= 1) {
    throw new Error(
      `budget: a speed-up of ${budget} cannot be had, since by the profile a reused step takes as long as a ` +
        "computed one. Set budget_kind to 'reuse ratio'.",
    );
  }
  if (kind === "speed-up") return Math.ceil(((1 - 1 / budget) / (1 - reuseCost)) * steps - 1e-9) || 0;
  if (!Number.isInteger(budget)) {
    throw new Error(
      `budget: ${budget} is no number of full steps. Take a whole number, or another budget_kind.`,
    );
  }
  return Math.max(steps - budget, 0);
}

/** @returns {import("./plan.js").StepCost} */
function costFor(name, steps, reused, constraints, { curvature, axis, lengths }) {
  const costs = {
    reach: () => reachCost(axis, lengths),
    curvature: () => costOf(curvature),
    even: () => evenCost(steps, reused, constraints),
  };
  return known("cost", name, costs)();
}

/** What a polynomial through the computed steps around a reused one leaves. */
function reachCost(axis, lengths) {
  const weights = lengths.map((length) => Math.sqrt(Math.abs(length)));
  return (step, last, before, following) => {
    const [here, third] = [axis[step], axis[following < lengths.length ? following : before]];
    return Math.abs((here - axis[last]) * (here - axis[before]) * (here - third)) * weights[step];
  };
}

function errorAfterRepay({ error, axis }) {
  const cost = costOf(error);
  return (step, last, before, following) => {
    const measured = cost(step, last, before, following);
    if (measured === UNMEASURED || following === axis.length - 1 || axis[step] <= axis[before]) return measured;
    return measured * Math.min(Math.abs(axis[following] - axis[step]) / (axis[step] - axis[before]), 1);
  };
}

function evenCost(steps, reused, constraints) {
  const first = Math.max(constraints.protectFirst, FIRST_FULL);
  const room = Math.max(steps - first - roomOf(constraints).protectLast, 1);
  const share = Math.min(reused / room, 1);
  const before = (step) => Math.floor((step - first) * share + 1e-9);
  const isWanted = (step) => step >= first && step < first + room && before(step + 1) > before(step);
  return (step, last) => (isWanted(step) ? 0 : 1) + 0.01 * (step - last) ** 2;
}

/** Of what an input chooses; it may come from a later version of the node. */
function known(input, choice, choices) {
  if (!Object.hasOwn(choices, choice)) throw new Error(`${input}: '${choice}' is not known to this plot.`);
  return choices[choice];
}

/** As Python rounds: a half goes to the even neighbour. */
function roundedToEven(value) {
  const below = Math.floor(value);
  if (value - below !== 0.5) return Math.round(value);
  return below % 2 ? below + 1 : below;
}
