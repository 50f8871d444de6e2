/**
 * What a node sends to be plotted: reading it, and putting it into words. It may come from anywhere, as
 * workflows do, so nothing in it is taken on trust.
 */

import { LONGEST_RUN, parseOverrides } from "./plan.js";
import { replanned } from "./replan.js";

const MOST_STEPS = 10000;
const KINDS = ["full", "reused", "corrected"];
const LONGEST_TEXT = 300;
const LARGEST = 1e9; // nothing measured is larger, or, but for 0, smaller than its inverse
const DEGREES = 180 / Math.PI;

/**
 * @typedef {object} PlotData
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
 * @property {number | null} error predicted displacement of the sample, percent of its way
 * @property {(number | null)[]} gain share of the error that gamma predicts, percent
 * @property {(number | null)[]} logSnr log of signal over noise
 * @property {number[][] | null} path the mean trajectory, three coordinates a step
 * @property {import("./replan.js").Settings | null} settings inputs that the plan was made of
 * @property {("full" | "reuse" | null)[]} forced what each step is forced to be
 * @property {import("./replan.js").Replan | null} replan what it takes to solve the plan anew; null where the
 * plot cannot
 *
 * @typedef {object} LiveRun a sampling run, so far
 * @property {number} steps that it has; not always those of the plot
 * @property {("full" | "reused" | "corrected")[]} kinds of the steps that are done
 * @property {(number | null)[]} repaid what each put right of the steps before, percent of the state's size
 * @property {(number | null)[]} milliseconds
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
    error: percent(number(fields.error)),
    gain: numbers(fields.gain, count, 100),
    logSnr: numbers(fields.log_snr, count),
    path: readPath(fields.path, count),
    settings: readSettings(fields.settings),
    forced: Array(count).fill(null),
    replan: readReplan(fields.replan, count),
  };
}

/**
 * The same with the plan that the node would make of these settings. Where there is none, the note says why.
 * @param {PlotData} data
 * @param {Partial<import("./replan.js").Settings>} inputs those that the node knows
 * @returns {PlotData}
 */
export function withSettings(data, inputs) {
  if (!data.settings) return data;
  const settings = { ...data.settings, ...inputs };
  const changes = Object.keys(settings).filter((name) => settings[name] !== data.settings[name]);
  const unseen = changes.find((name) => name === "saved_profile" || !data.replan);
  const note = unseen && `${unseen} has been changed: run to see what it makes of the plan.`;
  try {
    const { full, reuse } = parseOverrides(settings.overrides);
    const forced = data.timesteps.map((_, step) =>
      full.has(step) ? "full" : reuse.has(step) ? "reuse" : null,
    );
    const isKnown = !changes.length && (data.reused || data.note);
    if (!data.replan || isKnown) return { ...data, forced, note: note ?? data.note };
    const { reused, speedup, error } = replanned(data.count, data.replan, settings);
    const computed = reused.filter((value) => !value).length;
    const plan = { reused, full: computed, speedup, error: percent(error) };
    return { ...data, ...plan, forced, note: note ?? "" };
  } catch (error) {
    const none = { reused: null, full: data.count, speedup: null, error: null };
    return { ...data, ...none, note: error.message };
  }
}

/**
 * @param {unknown} message of the event omnicache.step
 * @returns {LiveRun | null}
 */
export function readLive(message) {
  const { steps, kinds, milliseconds, repaid } = Object(message);
  if (!Number.isInteger(steps) || steps < 1 || steps > MOST_STEPS) return null;
  if (!Array.isArray(kinds) || !kinds.length || kinds.length > steps) return null;
  if (!kinds.every((kind) => KINDS.includes(kind))) return null;
  return {
    steps,
    kinds,
    milliseconds: numbers(milliseconds, kinds.length),
    repaid: numbers(repaid, kinds.length, 100),
  };
}

/** The line above the plot while sampling. @param {LiveRun} live */
export function liveCaption(live) {
  return `step ${live.kinds.length} of ${live.steps} · ${liveFacts(live, live.kinds.length - 1).join(" · ")}`;
}

/**
 * What is known of one step of a run.
 * @param {LiveRun} live
 * @param {number} step
 * @returns {string[]}
 */
export function liveFacts({ kinds, milliseconds, repaid }, step) {
  const share = repaid[step] ? [`repaid ${withUnit(repaid[step], " %")}`] : [];
  return [kinds[step], ...share, withUnit(milliseconds[step], " ms")];
}

/**
 * The line above the plot.
 * @param {PlotData} data
 */
export function caption({ settings, reused, full, asked, speedup, error }) {
  if (!reused) return settings ? "no plan with these inputs" : `${asked} steps measured`;
  const parts = [`${full} of ${asked} computed`];
  if (speedup !== null) parts.push(`predicted ${speedup.toFixed(speedup < 9.95 ? 1 : 0)}×`);
  if (error !== null) parts.push(`error ${shortNumber(error)} %`);
  return parts.join(" · ");
}

/**
 * What is known of one step, as pairs of name and value; steps count from 0, as the overrides do.
 * @param {PlotData} data
 * @param {number} step
 * @param {LiveRun | null} [live]
 * @returns {{ heading: string, state: string, facts: [string, string][] }}
 */
export function stepFacts(data, step, live = null) {
  const spread = data.curvatureSpread[step];
  const state = data.reused ? (data.reused[step] ? "reused" : "computed") : "";
  const kind = live?.steps === data.count ? live.kinds[step] : undefined;
  return {
    heading: `step ${step}`,
    state: state && data.forced[step] ? `${state}, forced` : state,
    facts: [
      ["timestep", shortNumber(data.timesteps[step])],
      ["sigma", shortNumber(data.sigmas[step])],
      ["curvature", withUnit(data.curvature[step], "°") + (spread ? ` ± ${shortNumber(spread, 2)}°` : "")],
      ["gamma", shortNumber(data.gamma[step])],
      ["error", withUnit(data.noise[step], " %")],
      ["gain", withUnit(data.gain[step], " %")],
      ...(kind ? [["this run", liveFacts(live, step).join(", ")]] : []),
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
  const forced = data.forced.flatMap((kind, step) => (kind ? [step] : []));
  if (forced.length) sentences.push(`forced steps: ${forced.join(", ")}`);
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

function readPath(value, count) {
  if (!Array.isArray(value) || value.length !== count) return null;
  const points = value.map((point) => numbers(point, 3));
  return points.some((point) => point.includes(null)) ? null : points;
}

/** @returns {import("./replan.js").Settings | null} */
function readSettings(value) {
  const fields = Object(value);
  const counts = ["max_consecutive", "protect_first", "protect_last"];
  const texts = ["saved_profile", "budget_kind", "cost", "overrides"];
  const isCount = (each) => Number.isInteger(each) && each >= 0 && each <= MOST_STEPS;
  if (!counts.every((name) => isCount(fields[name])) || number(fields.budget) === null) return null;
  if (!texts.every((name) => typeof fields[name] === "string")) return null;
  return Object.fromEntries([...counts, ...texts, "budget"].map((name) => [name, fields[name]]));
}

/** @returns {import("./replan.js").Replan | null} */
function readReplan(value, count) {
  const { reuse_cost: reuseCost, way, curvature, error, axis, lengths } = Object(value);
  const isRow = (row, size) => Array.isArray(row) && row.length === size && row.every(Number.isFinite);
  if (!isRow(axis, count + 1) || !isRow(lengths, count)) return null;
  if (!isTable(curvature, count) || !isTable(error, count)) return null;
  if (!(number(way) > 0) || number(reuseCost) === null) return null;
  return { reuseCost, way, curvature, error, axis, lengths };
}

function isTable(value, count) {
  const { distances, gaps, values } = Object(value);
  const isUpTo = (most, size) => Number.isInteger(size) && size >= 1 && size <= most;
  const isKnown = isUpTo(LONGEST_RUN, distances) && isUpTo(LONGEST_RUN + 1, gaps);
  const fits = isKnown && Array.isArray(values) && values.length === count * distances * gaps;
  return fits && values.every(Number.isFinite);
}

function percent(value) {
  return value === null ? null : 100 * value;
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
