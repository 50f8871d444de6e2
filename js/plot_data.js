/**
 * What a node sends to be plotted: reading it, and putting it into words. It may come from anywhere, as
 * workflows do, so nothing in it is taken on trust.
 */

const MOST_STEPS = 10000;
const LONGEST_TEXT = 300;
const LARGEST = 1e9; // nothing measured is larger, or, but for 0, smaller than its inverse
const DEGREES = 180 / Math.PI;

/**
 * @typedef {object} PlotData
 * @property {"profile" | "schedule"} kind measured by calibration, or decided by a scheduler
 * @property {string} title
 * @property {string} note one line of advice, or empty
 * @property {number} count steps; each array below has one entry a step
 * @property {number[]} timesteps 1000 is pure noise, 0 is none
 * @property {(number | null)[]} sigmas
 * @property {(number | null)[]} curvature turning angle of the trajectory, degrees
 * @property {(number | null)[]} curvatureSpread standard deviation of it, degrees
 * @property {(number | null)[]} gamma factor by which a measured noise predicts a later one
 * @property {(number | null)[]} noise error of reuse, percent of the model's output
 * @property {boolean[] | null} reused steps that reuse the cache; null where there is no schedule
 * @property {number} full steps that are computed
 * @property {number} asked steps that the sampler asks for
 * @property {number | null} speedup predicted ratio of wall-clock times
 */

/**
 * @param {unknown} payload
 * @returns {PlotData | null} null where nothing can be drawn: there are no timesteps, or not only numbers
 */
export function readPayload(payload) {
  if (typeof payload !== "object" || payload === null) return null;
  const fields = /** @type {Record<string, unknown>} */ (payload);
  const count = Array.isArray(fields.timesteps) ? fields.timesteps.length : 0;
  if (count < 2 || count > MOST_STEPS) return null;
  const timesteps = numbers(fields.timesteps, count);
  if (timesteps.includes(null)) return null;
  const speedup = number(fields.speedup);
  const reused =
    Array.isArray(fields.reused) && fields.reused.length === count ? fields.reused.map(Boolean) : null;
  return {
    kind: fields.kind === "schedule" && reused ? "schedule" : "profile",
    title: text(fields.title),
    note: text(fields.note),
    count,
    timesteps,
    sigmas: numbers(fields.sigmas, count),
    curvature: numbers(fields.curvature, count, DEGREES),
    curvatureSpread: numbers(fields.curvature_sd, count, DEGREES),
    gamma: numbers(fields.gamma, count),
    noise: numbers(fields.noise, count, 100),
    reused,
    full: reused ? reused.filter((value) => !value).length : count,
    asked: count,
    speedup: speedup > 0 ? speedup : null,
  };
}

/**
 * The line above the plot.
 * @param {PlotData} data
 */
export function caption({ kind, full, asked, speedup }) {
  if (kind === "profile") return `${asked} steps measured`;
  const computed = `${full} of ${asked} computed`;
  return speedup === null ? computed : `${computed} · predicted ${speedup.toFixed(speedup < 9.95 ? 1 : 0)}×`;
}

/**
 * What is known of one step, as pairs of name and value; steps count from 0, as the overrides do.
 * @param {PlotData} data
 * @param {number} step
 * @returns {{ heading: string, state: string, facts: [string, string][] }}
 */
export function stepFacts(data, step) {
  const spread = data.curvatureSpread[step];
  return {
    heading: `step ${step}`,
    state: data.reused ? (data.reused[step] ? "reused" : "computed") : "",
    facts: [
      ["timestep", shortNumber(data.timesteps[step])],
      ["sigma", shortNumber(data.sigmas[step])],
      ["curvature", withUnit(data.curvature[step], "°") + (spread ? ` ± ${shortNumber(spread, 2)}°` : "")],
      ["gamma", shortNumber(data.gamma[step])],
      ["noise", withUnit(data.noise[step], " %")],
    ],
  };
}

/**
 * The plot in a sentence, for those who cannot see it.
 * @param {PlotData} data
 */
export function description(data) {
  const highest = (values) => Math.max(...values.filter((value) => value !== null));
  const sentences = [data.title, caption(data)];
  if (data.curvature.some((value) => value !== null)) {
    const top = highest(data.curvature);
    const timestep = shortNumber(data.timesteps[data.curvature.indexOf(top)]);
    sentences.push(`curvature is largest, ${withUnit(top, "°")}, at timestep ${timestep}`);
  }
  const reused = data.reused?.flatMap((value, step) => (value ? [step] : [])) ?? [];
  if (reused.length) sentences.push(`reused steps: ${reused.join(", ")}`);
  return `${sentences.filter(Boolean).join(". ")}.`;
}

/**
 * A number rounded to significant digits, but never before its decimal point.
 * @param {number | null} value
 * @param {number} [digits]
 */
export function shortNumber(value, digits = 3) {
  if (value === null) return "–";
  const size = Math.abs(value);
  if (size >= 1e5 || (size !== 0 && size < 1e-3)) return value.toExponential(1);
  const decimals = size === 0 ? 0 : Math.max(0, digits - 1 - Math.floor(Math.log10(size)));
  return String(Number(value.toFixed(decimals)));
}

function withUnit(value, unit) {
  return shortNumber(value) + (value === null ? "" : unit);
}

/** @returns {(number | null)[]} */
function numbers(values, count, factor = 1) {
  if (!Array.isArray(values) || values.length !== count) return Array(count).fill(null);
  return values.map((value) => {
    const known = number(value);
    return known === null ? null : known * factor;
  });
}

function number(value) {
  if (typeof value !== "number" || !(Math.abs(value) <= LARGEST)) return null;
  return Math.abs(value) < 1 / LARGEST ? 0 : value;
}

function text(value) {
  return typeof value === "string" ? value.slice(0, LONGEST_TEXT) : "";
}
