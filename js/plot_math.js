/**
 * The plot's arithmetic: from data to positions, axes, path strings and the step under the pointer. Pure
 * functions; nothing here touches the document.
 */

/** Where steps are bunched, the axis is stretched until each has at least this share of an equal spacing. */
const LEAST_SPACING = 0.5;

/** Multiples of a power of ten that read well as the distance between two ticks. */
const NICE_STEPS = [1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10];

/**
 * @param {[number, number]} domain
 * @param {[number, number]} range
 * @returns {(value: number) => number}
 */
export function linearScale([low, high], [start, end]) {
  const slope = high === low ? 0 : (end - start) / (high - low);
  return (value) => start + (value - low) * slope;
}

/**
 * A value axis with a given number of equal intervals, so that two axes can share their grid lines.
 * @param {number} low
 * @param {number} high
 * @param {number} intervals
 * @returns {{ domain: [number, number], ticks: number[], decimals: number }} decimals: what the labels need
 */
export function valueAxis(low, high, intervals) {
  if (high - low <= 1e-9 * Math.max(Math.abs(low), Math.abs(high))) {
    const margin = Math.abs(low) * 0.5 || 0.5;
    [low, high] = [low - margin, low + margin];
  }
  const rough = (high - low) / intervals;
  let power = Math.floor(Math.log10(rough));
  for (; ; power += 1) {
    for (const nice of NICE_STEPS) {
      const step = nice * 10 ** power;
      const first = Math.floor(low / step + 1e-9);
      if ((first + intervals) * step < high - step * 1e-9) continue;
      const ticks = Array.from({ length: intervals + 1 }, (_, index) => (first + index) * step);
      const decimals = Math.max(0, (Number.isInteger(nice) ? 0 : 1) - power - (nice === 10 ? 1 : 0));
      return { domain: [ticks[0], ticks[intervals]], ticks, decimals };
    }
  }
}

/**
 * Where the steps lie on an axis of timesteps that runs from the start of sampling to its end.
 *
 * Positions are proportional to the timestep. Schedules with a shift bunch their first steps; there an equal
 * spacing is mixed in, only as much as it takes to keep every step visible. Timesteps that do not fall are
 * spaced equally.
 * @param {number[]} timesteps
 * @returns {{ centres: number[], edges: number[] }} both in 0..1; step i lies between the edges i and i + 1
 */
export function stepPositions(timesteps) {
  const count = timesteps.length;
  const equal = 1 / (count - 1);
  const length = timesteps[0] - timesteps[count - 1];
  const falls = timesteps.slice(1).map((timestep, index) => timesteps[index] - timestep);
  const least = Math.min(...falls) / length;
  const ordered = length > 0 && least >= 0;
  const lacking = (LEAST_SPACING * equal - least) / (equal - least); // solves mix * equal + (1 - mix) * least
  const mix = !ordered ? 1 : least < LEAST_SPACING * equal ? lacking : 0;
  const gaps = falls.map((fall) => mix * equal + (ordered ? ((1 - mix) * fall) / length : 0));

  const span = 1 + gaps[0] / 2 + gaps[count - 2] / 2;
  const centres = [gaps[0] / 2 / span];
  for (const gap of gaps) centres.push(centres.at(-1) + gap / span);
  const edges = [0, ...gaps.map((_, index) => (centres[index] + centres[index + 1]) / 2), 1];
  return { centres, edges };
}

/**
 * The step whose cell holds a position; the first or last one outside the plot.
 * @param {number[]} edges
 * @param {number} position
 */
export function nearestStep(edges, position) {
  let low = 0;
  let high = edges.length - 2;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (edges[middle] <= position) low = middle;
    else high = middle - 1;
  }
  return low;
}

/**
 * Where on an element the pointer is, in the element's own pixels. The client scales its nodes by a CSS
 * transform, which the bounding box has been through and clientWidth has not.
 * @param {number} clientX
 * @param {{ left: number, width: number }} box
 * @param {number} clientWidth
 */
export function pointerOffset(clientX, box, clientWidth) {
  return ((clientX - box.left) * clientWidth) / box.width;
}

/**
 * The steps to label: the first, the last, and between them as evenly as their positions allow.
 * @param {number[]} positions of the steps, rising
 * @param {number} distance that two labels need at least
 */
export function labelledSteps(positions, distance) {
  const last = positions.length - 1;
  const length = positions[last] - positions[0];
  const spacing = length / Math.max(1, Math.floor(length / distance));
  const labelled = [0];
  for (let step = 1; step < last; step += 1) {
    const fits = positions[last] - positions[step] >= distance;
    if (fits && positions[step] - positions[labelled.at(-1)] >= spacing - 1e-9) labelled.push(step);
  }
  return [...labelled, last];
}

/**
 * A line through points; a null interrupts it, and a lone point becomes a dot (with a round line cap).
 * @param {number[]} xs
 * @param {(number | null)[]} ys
 */
export function linePath(xs, ys) {
  return definedRuns(ys)
    .map(([start, end]) => {
      const points = [];
      for (let index = start; index < end; index += 1) points.push(`${round(xs[index])} ${round(ys[index])}`);
      return `M${points.join("L")}${points.length === 1 ? "h0" : ""}`;
    })
    .join("");
}

/**
 * The area between two lines, where both are defined.
 * @param {number[]} xs
 * @param {(number | null)[]} tops
 * @param {(number | null)[]} bottoms
 */
export function areaPath(xs, tops, bottoms) {
  return definedRuns(tops.map((top, index) => (bottoms[index] === null ? null : top)))
    .filter(([start, end]) => end - start > 1)
    .map(([start, end]) => {
      const there = [];
      const back = [];
      for (let index = start; index < end; index += 1) {
        there.push(`${round(xs[index])} ${round(tops[index])}`);
        back.unshift(`${round(xs[index])} ${round(bottoms[index])}`);
      }
      return `M${[...there, ...back].join("L")}Z`;
    })
    .join("");
}

/**
 * Longest stretches of equal values.
 * @param {boolean[]} flags
 * @returns {{ value: boolean, start: number, end: number }[]} end is exclusive
 */
export function runsOf(flags) {
  const runs = [];
  flags.forEach((value, index) => {
    if (runs.length && runs.at(-1).value === value) runs.at(-1).end = index + 1;
    else runs.push({ value, start: index, end: index + 1 });
  });
  return runs;
}

/** @param {number[]} positions rising, at least two */
export function narrowest(positions) {
  return Math.min(...positions.slice(1).map((position, index) => position - positions[index]));
}

function definedRuns(values) {
  return runsOf(values.map((value) => value !== null))
    .filter((run) => run.value)
    .map(({ start, end }) => [start, end]);
}

function round(value) {
  return Math.round(value * 100) / 100;
}
