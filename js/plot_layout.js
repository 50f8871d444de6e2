/** Decides where everything in the plot goes, in pixels. Nothing here touches the document. */

import { shortNumber } from "./plot_data.js";
import { labelledSteps, linearScale, stepPositions, valueAxis } from "./plot_math.js";

/**
 * @typedef {import("./plot_data.js").PlotData} PlotData
 * @typedef {{ left: number, right: number, top: number, bottom: number }} Box
 *
 * @typedef {object} Curve
 * @property {CurveName} name
 * @property {"left" | "right" | null} side where its axis is; two curves have one
 * @property {(number | null)[]} ys one a step
 * @property {{ upper: (number | null)[], lower: (number | null)[] } | null} spread
 * @property {{ y: number, label: string }[]} ticks
 *
 * @typedef {object} Layout
 * @property {number} width
 * @property {number} height
 * @property {Box} frame around the curves
 * @property {Box} strip below the frame, where each step has a cell; of no height if there is no schedule
 * @property {Box} run below the strip, where each step of a sampling run has a cell; of no height if none is
 * @property {number[]} runCells where the cells of the run's steps meet
 * @property {Curve[]} curves those that have data
 * @property {number[]} xs of the steps
 * @property {number[]} cells where the cells of the steps meet: one more than steps
 * @property {{ x: number, upper: string, lower: string }[]} labels of some steps
 * @property {[string, string]} rows what the two rows of these labels are
 *
 * @typedef {"curvature" | "gamma" | "error" | "gain"} CurveName
 * @typedef {"timestep" | "step" | "log-SNR"} AxisName
 *
 * @typedef {object} Look
 * @property {CurveName[]} curves that are shown
 * @property {AxisName} axis what the steps are placed by
 */

/** Of a letter in the legend, or a digit of the labels, in pixels: on average, and with some room. */
export const CHARACTER_WIDTH = 6;

/**
 * The axes reach down to 0. headroom, a factor, keeps the curvature low in the picture, while gamma, which is
 * about 1, lies high: so they cross less.
 */
const CURVES = [
  { name: "gamma", key: "gamma", side: "right", unit: "", headroom: 1, reaches: 1 },
  {
    name: "curvature",
    key: "curvature",
    spread: "curvatureSpread",
    side: "left",
    unit: "°",
    headroom: 1.4,
    reaches: 0,
  },
  { name: "error", key: "noise", side: "left", unit: "%", headroom: 1.2, reaches: 0 },
  { name: "gain", key: "gain", side: "right", unit: "%", headroom: 1.1, reaches: 0 },
];

/** @type {Record<AxisName, { values: (data: PlotData) => number[], rows: [string, string], short: [string, string] }>} */
const AXES = {
  timestep: { values: ({ timesteps }) => timesteps, rows: ["timestep", "sigma"], short: ["t", "σ"] },
  step: {
    values: ({ timesteps }) => timesteps.map((_, step) => -step),
    rows: ["step", "timestep"],
    short: ["step", "t"],
  },
  "log-SNR": {
    values: ({ logSnr }) => logSnr.map((value) => -value),
    rows: ["log-SNR", "sigma"],
    short: ["SNR", "σ"],
  },
};

/** @type {CurveName[]} */
export const CURVE_NAMES = ["curvature", "gamma", "error", "gain"];

/** @type {AxisName[]} */
export const AXIS_NAMES = ["timestep", "step", "log-SNR"];

/** @type {Look} */
export const FIRST_LOOK = { curves: ["curvature", "gamma"], axis: "timestep" };

const NEGLIGIBLE = 0.05;
const LEGEND_HEIGHT = 22;
const TOP_MARGIN = 6;
const ROW_GAP = 3;
const STRIP_GAP = 5;
const STRIP_HEIGHT = 10;
const LABELS_HEIGHT = 29;
const TICK_DISTANCE = 30;
const LABEL_DISTANCE = 38;
const WIDTH_FOR_WORDS = 320;

/**
 * @param {PlotData} data
 * @param {number} width in pixels
 * @param {number} height in pixels
 * @param {{ look?: Look, live?: import("./plot_data.js").LiveRun | null, hasLegend?: boolean }} [options]
 * @returns {Layout}
 */
export function layoutPlot(data, width, height, { look = FIRST_LOOK, live = null, hasLegend = true } = {}) {
  const top = hasLegend ? LEGEND_HEIGHT : TOP_MARGIN;
  const runBottom = height - LABELS_HEIGHT;
  const stripBottom = runBottom - (live ? STRIP_HEIGHT + ROW_GAP : 0);
  const stripTop = data.reused ? stripBottom - STRIP_HEIGHT : stripBottom;
  const bottom = Math.max(top + 1, data.reused || live ? stripTop - STRIP_GAP : stripTop);
  const intervals = Math.min(5, Math.max(2, Math.round((bottom - top) / TICK_DISTANCE)));
  const curves = placeCurves(data, look.curves, intervals, [bottom, top]);

  const axis = AXES[look.axis === "log-SNR" && data.logSnr.includes(null) ? "timestep" : look.axis];
  const rows = width < WIDTH_FOR_WORDS ? axis.short : axis.rows;
  const left = Math.max(
    axisWidth(curves, "left"),
    Math.max(...rows.map(({ length }) => length)) * CHARACTER_WIDTH + 12,
  );
  const right = Math.max(left + 1, width - axisWidth(curves, "right"));

  const { centres, edges } = stepPositions(axis.values(data));
  const across = linearScale([0, 1], [left, right]);
  const xs = centres.map(across);
  const cells = edges.map(across);
  return {
    width,
    height,
    frame: { left, right, top, bottom },
    strip: { left, right, top: stripTop, bottom: stripBottom },
    run: { left, right, top: live ? runBottom - STRIP_HEIGHT : runBottom, bottom: runBottom },
    curves,
    xs,
    cells,
    runCells:
      !live || live.steps === data.count
        ? cells
        : Array.from({ length: live.steps + 1 }, (_, edge) => across(edge / live.steps)),
    labels: labelledSteps(xs, LABEL_DISTANCE).map((step) => ({
      x: xs[step],
      upper: axisLabel(axis.rows[0], data, step),
      lower: axisLabel(axis.rows[1], data, step),
    })),
    rows,
  };
}

function axisLabel(name, { timesteps, sigmas, logSnr }, step) {
  if (name === "step") return String(step);
  if (name === "sigma") return shortNumber(sigmas[step], 2);
  return name === "timestep" ? shortNumber(timesteps[step], 0) : shortNumber(logSnr[step], 2);
}

/** The first curve of a side has its axis there; one whose side is taken has the other, if that is free. */
function placeCurves(data, names, intervals, range) {
  const known = CURVES.filter(({ name }) => names.includes(name))
    .map((curve) => placeCurve(curve, data, intervals, range))
    .filter(Boolean);
  const ordered = CURVE_NAMES.flatMap((name) => known.filter((curve) => curve.name === name));
  const taken = new Set();
  for (const curve of ordered) {
    const other = curve.side === "left" ? "right" : "left";
    curve.side = !taken.has(curve.side) ? curve.side : !taken.has(other) ? other : null;
    taken.add(curve.side);
  }
  return known;
}

/** @returns {Curve | null} null if there is nothing to draw */
function placeCurve({ name, key, side, unit, spread, headroom, reaches }, data, intervals, range) {
  const values = data[key];
  const spreads = data[spread]?.some((value) => value > 0) ? data[spread] : null;
  const shifted = (sign) =>
    values.map((value, step) => (value === null ? null : value + sign * (spreads?.[step] ?? 0)));
  const [upper, lower] = [shifted(1), shifted(-1)];
  const reached = [...values, ...upper].filter((value) => value !== null);
  if (!reached.length) return null;

  const high = reached.reduce((a, b) => Math.max(a, b), reaches) * headroom;
  const low = reached.reduce((a, b) => Math.min(a, b), 0);
  const floor = low < -NEGLIGIBLE * high ? low : 0; // no second half of an axis for a hair below 0
  const { domain, ticks, decimals } = valueAxis(floor, high, intervals);
  const scale = linearScale(domain, range);
  const place = (value) => (value === null ? null : scale(Math.max(value, domain[0])));
  return {
    name,
    side,
    ys: values.map(place),
    spread: spreads && { upper: upper.map(place), lower: lower.map(place) },
    ticks: ticks.map((tick) => ({ y: scale(tick), label: tick.toFixed(decimals) + unit })),
  };
}

/** Room for the labels of an axis. */
function axisWidth(curves, side) {
  const ticks = curves.filter((curve) => curve.side === side).flatMap((curve) => curve.ticks);
  return 8 + CHARACTER_WIDTH * Math.max(2, ...ticks.map(({ label }) => label.length));
}
