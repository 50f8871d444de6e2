/** Draws a plot as one SVG picture. Colours and fonts are in omnicache.css. */

import { description } from "./plot_data.js";
import { CHARACTER_WIDTH, layoutPlot } from "./plot_layout.js";
import { areaPath, linePath, narrowest, runsOf } from "./plot_math.js";

/**
 * @typedef {import("./plot_data.js").PlotData} PlotData
 * @typedef {import("./plot_layout.js").Layout} Layout
 */

const NAMESPACE = "http://www.w3.org/2000/svg";
const SPACING_FOR_MARKERS = 5.5;
const SPACING_FOR_CELLS = 4;

/**
 * @param {PlotData} data
 * @param {number} width in pixels
 * @param {number} height in pixels
 * @returns {{ svg: SVGSVGElement, layout: Layout, mark: (step: number | null) => void }} mark points out a
 * step, or none
 */
export function drawPlot(data, width, height) {
  const layout = layoutPlot(data, width, height);
  const marks = group("marks");
  const svg = picture("", width, height, [
    create("title", {}, [description(data)]),
    ...(data.reused ? [drawBands(data.reused, layout), drawStrip(data.reused, layout)] : []),
    drawGrid(layout),
    ...layout.curves.map((curve) => drawCurve(curve, layout.xs, data.reused)),
    drawLegend(layout, data.reused?.includes(true)),
    drawLabels(layout),
    marks,
  ]);
  svg.setAttribute("role", "img");
  const mark = (step) => marks.replaceChildren(...(step === null ? [] : drawMarks(step, layout)));
  return { svg, layout, mark };
}

/** A sketch of a plot, for where there is no data yet. */
export function drawSketch() {
  const svg = picture(" sketch", 96, 40, [
    group(
      "bands",
      [20, 40, 60].map((x) => rectangle("", x, 0, x + 10, 40)),
    ),
    group("grid", [line("", 0, 39.5, 96, 39.5)]),
    group("curve gamma", [path("line", "M2 17C12 4 18 22 30 14S56 12 66 10S86 7 94 5")]),
    group("curve curvature", [path("line", "M2 12C6 30 14 32 26 31S54 34 66 32S88 28 94 20")]),
  ]);
  svg.setAttribute("aria-hidden", "true");
  return svg;
}

/** Behind the curves, where steps are reused. */
function drawBands(reused, { cells, frame }) {
  const runs = runsOf(reused).filter((run) => run.value);
  return group(
    "bands",
    runs.map(({ start, end }) => rectangle("", cells[start], frame.top, cells[end], frame.bottom)),
  );
}

/** A cell for each step, filled if computed and hollow if reused. Too narrow cells run together. */
function drawStrip(reused, { cells, strip }) {
  const apart = narrowest(cells) >= SPACING_FOR_CELLS;
  const gap = apart ? 0.75 : 0;
  const computed = (start, end) =>
    rectangle("computed", cells[start] + gap, strip.top, cells[end] - gap, strip.bottom);
  const hollow = (start, end) => {
    const inset = 0.5; // half of the outline
    const [left, right] = [cells[start] + gap + inset, cells[end] - gap - inset];
    return rectangle("reused", left, strip.top + inset, right, strip.bottom - inset);
  };
  const title = create("title", {}, ["The steps from first to last: filled = computed, hollow = reused"]);
  if (apart)
    return group("strip", [title, ...reused.map((value, i) => (value ? hollow : computed)(i, i + 1))]);
  const runs = runsOf(reused).filter((run) => !run.value);
  return group("strip", [
    title,
    hollow(0, reused.length),
    ...runs.map((run) => computed(run.start, run.end)),
  ]);
}

/** Horizontal lines, which the axes share, and the labels of the axes. */
function drawGrid({ curves, frame }) {
  const heights = curves.length ? curves[0].ticks.map(({ y }) => y) : [frame.bottom];
  const labels = curves.flatMap(({ name, side, ticks }) =>
    ticks.map((tick) =>
      side === "left"
        ? label(`${name} end`, frame.left - 6, tick.y + 3.5, tick.label)
        : label(`${name} start`, frame.right + 6, tick.y + 3.5, tick.label),
    ),
  );
  return group("grid", [...heights.map((y) => line("", frame.left, y, frame.right, y)), ...labels]);
}

function drawCurve({ name, ys, spread }, xs, reused) {
  const area = spread && path("spread", areaPath(xs, spread.upper, spread.lower));
  const known = ys.flatMap((y, step) => (y === null ? [] : [step]));
  const marked = narrowest(xs) >= SPACING_FOR_MARKERS ? known : [];
  const markers = marked.map((step) => marker(reused?.[step] ? "reused" : "computed", xs[step], ys[step], 2));
  return group(`curve ${name}`, [...(area ? [area] : []), path("line", linePath(xs, ys)), ...markers]);
}

/** What the lines are, each name at the side of its axis, and between the names what the bands are. */
function drawLegend({ curves, width }, hasBands) {
  const y = 11;
  const room = [0, width];
  const entries = curves.map(({ name, side }) => {
    const [start, end, anchor] = side === "left" ? [2, 18, 23] : [width - 18, width - 2, width - 23];
    if (side === "left") room[0] = anchor + name.length * CHARACTER_WIDTH;
    else room[1] = anchor - name.length * CHARACTER_WIDTH;
    const sample = line("line", start, y - 3.5, end, y - 3.5);
    return group(`curve ${name}`, [sample, label(side === "left" ? "start" : "end", anchor, y, name)]);
  });
  const middle = (room[0] + room[1]) / 2;
  const swatch = rectangle("", middle - 27, y - 9, middle - 15, y + 2);
  const bands = hasBands ? [group("bands", [swatch]), label("start", middle - 10, y, "reused")] : [];
  return group("legend", [...entries, ...bands]);
}

/** Two rows under the plot: timesteps, and their sigmas. */
function drawLabels({ labels, rows, height }) {
  const [upper, lower] = [height - 15, height - 3];
  return group("labels", [
    label("start", 0, upper, rows[0]),
    label("start faint", 0, lower, rows[1]),
    ...labels.map(({ x, timestep }) => label("middle", x, upper, timestep)),
    ...labels.map(({ x, sigma }) => label("middle faint", x, lower, sigma)),
  ]);
}

function drawMarks(step, { curves, xs, frame, strip }) {
  const points = curves
    .filter(({ ys }) => ys[step] !== null)
    .map(({ name, ys }) => group(`curve ${name}`, [marker("computed", xs[step], ys[step], 3.5)]));
  return [line("", xs[step], frame.top, xs[step], strip.bottom), ...points];
}

function picture(className, width, height, children) {
  const size = { width, height, viewBox: `0 0 ${width} ${height}` };
  return create("svg", { class: `omnicache-svg${className}`, ...size }, children);
}

function group(className, children = []) {
  return create("g", { class: className }, children);
}

function path(className, d) {
  return create("path", { class: className, d });
}

function line(className, x1, y1, x2, y2) {
  return create("line", { class: className, x1: tidy(x1), y1: tidy(y1), x2: tidy(x2), y2: tidy(y2) });
}

function rectangle(className, left, top, right, bottom) {
  const size = { width: tidy(Math.max(right - left, 0)), height: tidy(Math.max(bottom - top, 0)) };
  return create("rect", { class: className, x: tidy(left), y: tidy(top), ...size });
}

function marker(className, x, y, radius) {
  return create("circle", { class: `marker ${className}`, cx: tidy(x), cy: tidy(y), r: radius });
}

function label(className, x, y, text) {
  return create("text", { class: className, x: tidy(x), y: tidy(y) }, [text]);
}

function create(tag, attributes, children = []) {
  const element = document.createElementNS(NAMESPACE, tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== "") element.setAttribute(name, String(value));
  }
  element.append(...children); // strings become text nodes, never markup
  return element;
}

function tidy(value) {
  return Math.round(value * 100) / 100;
}
