/** Decides where everything in the plot goes, in pixels. Nothing here touches the document. */

import { shortNumber } from "./plot_data.js";
import { labelledSteps, linearScale, stepPositions, valueAxis } from "./plot_math.js";

/**
 * @typedef {import("./plot_data.js").PlotData} PlotData
 * @typedef {{ left: number, right: number, top: number, bottom: number }} Box
 *
 * @typedef {object} Curve
 * @property {"curvature" | "gamma"} name
 * @property {"left" | "right"} side where its axis is
 * @property {(number | null)[]} ys one a step
 * @property {{ upper: (number | null)[], lower: (number | null)[] } | null} spread
 * @property {{ y: number, label: string }[]} ticks
 *
 * @typedef {object} Layout
 * @property {number} width
 * @property {number} height
 * @property {Box} frame around the curves
 * @property {Box} strip below the frame, where each step has a cell; of no height if there is no schedule
 * @property {Curve[]} curves those that have data
 * @property {number[]} xs of the steps
 * @property {number[]} cells where the cells of the steps meet: one more than steps
 * @property {{ x: number, timestep: string, sigma: string }[]} labels of some steps
 * @property {[string, string]} rows what the two rows of these labels are
 */

/** Of a letter in the legend, or a digit of the labels, in pixels: on average, and with some room. */
export const CHARACTER_WIDTH = 6;

/**
 * Both axes reach down to 0. headroom, a factor, keeps the curvature low in the picture, while gamma, which
 * is about 1, lies high: so they cross less.
 */
const CURVES = [
  { name: "gamma", spread: null, side: "right", unit: "", headroom: 1, reaches: 1 },
  { name: "curvature", spread: "curvatureSpread", side: "left", unit: "°", headroom: 1.4, reaches: 0 },
];

const NEGLIGIBLE = 0.05;
const LEGEND_HEIGHT = 22;
const STRIP_GAP = 5;
const STRIP_HEIGHT = 8;
const LABELS_HEIGHT = 29;
const TICK_DISTANCE = 30;
const LABEL_DISTANCE = 38;
const WIDTH_FOR_WORDS = 320;

/**
 * @param {PlotData} data
 * @param {number} width in pixels
 * @param {number} height in pixels
 * @returns {Layout}
 */
export function layoutPlot(data, width, height) {
  const top = LEGEND_HEIGHT;
  const stripBottom = height - LABELS_HEIGHT;
  const stripTop = data.reused ? stripBottom - STRIP_HEIGHT : stripBottom;
  const bottom = Math.max(top + 1, data.reused ? stripTop - STRIP_GAP : stripTop);
  const intervals = Math.min(5, Math.max(2, Math.round((bottom - top) / TICK_DISTANCE)));
  const curves = CURVES.map((curve) => placeCurve(curve, data, intervals, [bottom, top])).filter(Boolean);

  /** @type {[string, string]} */
  const rows = width < WIDTH_FOR_WORDS ? ["t", "σ"] : ["timestep", "sigma"];
  const left = Math.max(axisWidth(curves, "left"), rows[0].length * CHARACTER_WIDTH + 12);
  const right = Math.max(left + 1, width - axisWidth(curves, "right"));

  const { centres, edges } = stepPositions(data.timesteps);
  const across = linearScale([0, 1], [left, right]);
  const xs = centres.map(across);
  return {
    width,
    height,
    frame: { left, right, top, bottom },
    strip: { left, right, top: stripTop, bottom: stripBottom },
    curves,
    xs,
    cells: edges.map(across),
    labels: labelledSteps(xs, LABEL_DISTANCE).map((step) => ({
      x: xs[step],
      timestep: shortNumber(data.timesteps[step], 0),
      sigma: shortNumber(data.sigmas[step], 2),
    })),
    rows,
  };
}

/** @returns {Curve | null} null if there is nothing to draw */
function placeCurve({ name, side, unit, spread, headroom, reaches }, data, intervals, range) {
  const values = data[name];
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
