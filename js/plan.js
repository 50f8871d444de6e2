/**
 * Which steps are reused: the same plan that omnicache/plan.py makes, and to the last bit the same choice, so
 * that the plot can show at once what an override changes. tests/plan_vectors.json keeps the two equal.
 */

const MIN_STEPS = 8;
const AUTOMATIC = 0;
export const FIRST_FULL = 2;
export const LONGEST_RUN = 4; // that withLongestRun may choose
export const UNMEASURED = 1e6; // in place of an error that calibration could not measure

/**
 * @typedef {object} Constraints
 * @property {number} maxConsecutive longest run of reused steps; 0 lets withLongestRun choose
 * @property {number} protectFirst steps kept full at the start
 * @property {number} protectLast steps kept full at the end
 * @property {Set<number>} full steps forced by hand
 * @property {Set<number>} reuse
 *
 * @typedef {(step: number, last: number, before: number, following: number) => number} StepCost what reusing a step
 *   costs, by the two computed steps before it and the one after it (the number of steps where there is none)
 * @typedef {{ full: Set<number>, reuse: Set<number> }} Overrides
 */

/**
 * Reads costs as nodes/plot.py tabulates them.
 * @param {{ distances: number, gaps: number, values: number[] }} table
 * @returns {StepCost}
 */
export function costOf({ distances, gaps, values }) {
  return (step, last, before) => {
    const [distance, gap] = [Math.min(step - last, distances), Math.min(last - before, gaps)];
    return values[(step * distances + distance - 1) * gaps + gap - 1];
  };
}

/**
 * The plan with exactly so many reused steps and the least sum of step costs.
 * @param {number} steps
 * @param {number} reused
 * @param {Constraints} constraints
 * @param {StepCost} cost
 * @returns {boolean[]} for each step whether it is reused
 * @throws {Error} if no plan meets the constraints
 */
export function solve(steps, reused, constraints, cost) {
  const limits = withLongestRun(constraints, steps, reused);
  const { mayBeFull, mayReuse } = allowed(limits, steps);
  if (reused === 0 && !limits.reuse.size) return Array(steps).fill(false);
  if (steps < MIN_STEPS) {
    throw new Error(
      `steps: ${steps} are too few to reuse any; at least ${MIN_STEPS} are needed. Use more steps, or ` +
        "connect the sampler to the model directly.",
    );
  }
  const longest = limits.maxConsecutive + 1; // longest distance between two full steps
  const width = reused + 1;
  const at = (i, gap, k) => (i * (longest + 1) + gap) * width + k;
  // best[i, gap, k]: least cost with step i full, the full step before it `gap` steps earlier, k steps reused.
  const best = new Float64Array(at(steps + 1, 0, 0)).fill(Infinity);
  const cameFrom = new Int32Array(best.length);
  best[at(1, 1, 0)] = 0;
  for (let i = 1; i < steps; i += 1) {
    for (let gap = 1; gap <= longest; gap += 1) {
      const from = at(i, gap, 0);
      if (!best.subarray(from, from + width).some(Number.isFinite)) continue;
      for (let distance = 1; distance <= Math.min(longest, steps - i); distance += 1) {
        const end = i + distance;
        if (distance > 1 && !mayReuse[end - 1]) break;
        if ((end < steps && !mayBeFull[end]) || distance - 1 > reused) continue;
        let segment = 0;
        for (let step = i + 1; step < end; step += 1) segment += cost(step, i, i - gap, end);
        for (let k = distance - 1; k <= reused; k += 1) {
          const candidate = best[from + k - (distance - 1)] + segment;
          const to = at(end, distance, k);
          if (candidate < best[to]) {
            best[to] = candidate;
            cameFrom[to] = gap;
          }
        }
      }
    }
  }
  let gap = 0;
  for (let each = 1; each <= longest; each += 1) {
    if (best[at(steps, each, reused)] < best[at(steps, gap, reused)]) gap = each;
  }
  if (!Number.isFinite(best[at(steps, gap, reused)])) {
    let most = 0;
    for (let each = 1; each <= longest; each += 1) {
      for (let k = 1; k <= reused; k += 1)
        if (Number.isFinite(best[at(steps, each, k)])) most = Math.max(most, k);
    }
    throw new Error(impossible(steps, reused, limits, most));
  }
  const mask = Array(steps).fill(true);
  mask[0] = false;
  let [end, left] = [steps, reused];
  while (end > 1) {
    const before = cameFrom[at(end, gap, left)];
    mask[end - gap] = false;
    [end, left, gap] = [end - gap, left - (gap - 1), before];
  }
  return mask;
}

/**
 * Wall-clock ratio of the uncached run to this plan's.
 * @param {boolean[]} reused
 * @param {number} reuseCost time of a reuse evaluation over that of a full one
 */
export function speedupOf(reused, reuseCost) {
  const count = reused.filter(Boolean).length;
  return reused.length / (reused.length - count + count * reuseCost);
}

/**
 * Predicted displacement of the sample, as a share of its way.
 * @param {boolean[]} reused
 * @param {StepCost} error
 * @param {number} way from the first sigma to the last
 * @returns {number | null} null where calibration could not measure it
 */
export function errorOf(reused, error, way) {
  const full = [...reused.keys()].filter((step) => !reused[step]);
  let sum = 0;
  for (const [number, last] of full.entries()) {
    const following = full[number + 1] ?? reused.length;
    for (let step = last + 1; step < following; step += 1) {
      const cost = error(step, last, full[number - 1], following);
      if (cost >= UNMEASURED) return null;
      sum += cost;
    }
  }
  return sum / way;
}

/**
 * Steps forced full and steps forced to reuse, from text such as "5 full, 10-12 reuse".
 * @param {string} text
 * @returns {Overrides}
 * @throws {Error}
 */
export function parseOverrides(text) {
  const forced = { full: new Set(), reuse: new Set() };
  for (const part of text.split(",").map((each) => each.trim())) {
    if (!part) continue;
    const match = /^(\d{1,4})(?:\s*-\s*(\d{1,4}))?\s+(full|reuse)$/.exec(part);
    if (!match) {
      throw new Error(
        `overrides: '${part}' is not understood. Write steps counted from 0 and what they are forced to be, ` +
          "such as '5 full, 10-12 reuse'.",
      );
    }
    for (let step = Number(match[1]); step <= Number(match[2] ?? match[1]); step += 1)
      forced[match[3]].add(step);
  }
  return forced;
}

/**
 * The text that parseOverrides reads back, in the order of the steps.
 * @param {Overrides} overrides
 */
export function writeOverrides({ full, reuse }) {
  const kinds = new Map([
    ...[...full].map((step) => [step, "full"]),
    ...[...reuse].map((step) => [step, "reuse"]),
  ]);
  const parts = [];
  for (const [step, kind] of [...kinds].sort(([a], [b]) => a - b)) {
    const last = parts.at(-1);
    if (last?.kind === kind && last.end === step - 1) last.end = step;
    else parts.push({ kind, start: step, end: step });
  }
  return parts
    .map(({ kind, start, end }) => `${start === end ? start : `${start}-${end}`} ${kind}`)
    .join(", ");
}

/** Two masks over the steps: may be full, may be reused. */
function allowed({ protectFirst, protectLast, full, reuse }, steps) {
  const ordered = (set) => [...set].sort((a, b) => a - b);
  const forced = ordered(new Set([...full, ...reuse]));
  const outside = forced.find((step) => step >= steps);
  if (outside !== undefined)
    throw new Error(`overrides: step ${outside} does not exist; this run has steps 0 to ${steps - 1}.`);
  const both = forced.find((step) => full.has(step) && reuse.has(step));
  if (both !== undefined)
    throw new Error(`overrides: step ${both} is forced full and reused at once; keep one of the two.`);
  if (forced.some((step) => reuse.has(step) && step < FIRST_FULL)) {
    const early = ordered(reuse)[0];
    throw new Error(`overrides: step ${early} cannot be reused, the first ${FIRST_FULL} fill the cache.`);
  }
  const first = Math.max(protectFirst, FIRST_FULL);
  const mayReuse = Array.from(
    { length: steps },
    (_, step) => reuse.has(step) || (step >= first && step < steps - protectLast && !full.has(step)),
  );
  return { mayReuse, mayBeFull: mayReuse.map((_, step) => !reuse.has(step)) };
}

/**
 * The shortest longest run, of 1 to 4, under which one step more could be reused, and that the forced steps fit
 * into, if it is to be chosen.
 */
function withLongestRun(constraints, steps, reused) {
  if (constraints.maxConsecutive !== AUTOMATIC) return constraints;
  const forced = longestForced(constraints.reuse);
  const lengths = [1, 2, 3, LONGEST_RUN].filter((longest) => longest >= Math.min(forced, LONGEST_RUN));
  const room = roomOf(constraints);
  const leavesChoice = (maxConsecutive) => mostReused({ ...room, maxConsecutive }, steps) > reused;
  return { ...constraints, maxConsecutive: lengths.find(leavesChoice) ?? lengths.at(-1) };
}

/** The same with the last step full: it may be reused, but not for the sake of shorter runs. */
export function roomOf(constraints) {
  return { ...constraints, protectLast: Math.max(constraints.protectLast, 1) };
}

/** How many steps in a row are forced to reuse, at most. @param {Set<number>} reuse */
function longestForced(reuse) {
  let [run, longest] = [0, 0];
  for (const step of [...reuse].sort((a, b) => a - b)) {
    run = reuse.has(step - 1) ? run + 1 : 1;
    longest = Math.max(longest, run);
  }
  return longest;
}

function mostReused(constraints, steps) {
  let [run, count] = [0, 0];
  for (const mayBeReused of allowed(constraints, steps).mayReuse) {
    run = mayBeReused && run < constraints.maxConsecutive ? run + 1 : 0;
    if (run) count += 1;
  }
  return count;
}

function impossible(steps, reused, { maxConsecutive, protectFirst, protectLast, full, reuse }, most) {
  let limits =
    `max_consecutive ${maxConsecutive}, protect_first ${Math.max(protectFirst, FIRST_FULL)}, ` +
    `protect_last ${protectLast}`;
  if (full.size || reuse.size) limits += ` and ${full.size + reuse.size} overrides`;
  const possible = most ? `up to ${most} of ${steps} steps` : "none";
  return (
    `budget: ${reused} of ${steps} steps cannot be reused with ${limits}; possible: ${possible}. Lower the ` +
    "budget, raise max_consecutive or protect fewer steps."
  );
}
