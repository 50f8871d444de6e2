/** Draws a plot as one SVG picture. Colours and fonts are in omnicache.css. */

import { description, liveFacts } from "./plot_data.js";
import { CHARACTER_WIDTH, layoutPlot } from "./plot_layout.js";
import { fitted, projected } from "./plot_space.js";
import { areaPath, linePath, narrowest, runsOf } from "./plot_math.js";

/**
 * @typedef {import("./plot_data.js").PlotData} PlotData
 * @typedef {import("./plot_layout.js").Layout} Layout
 */

const NAMESPACE = "http://www.w3.org/2000/svg";
const SPACING_FOR_MARKERS = 5.5;
const SPACING_FOR_CELLS = 4;
const SPACE_MARGIN = 16;
const SPACE_REACH = 1.45; // of what is seen of the path, but for rare views
const SPACE_AXES = ["u", "w1", "w2"]; // the way from noise to sample, and the two widest directions off it
const MOST_SPACE_MARKERS = 100;
const END_DISTANCE = 8;
const PIN_RADIUS = 3;
const DOT_RADIUS = 1.75;

/**
 * @param {PlotData} data
 * @param {number} width in pixels
 * @param {number} height in pixels
 * @param {Parameters<typeof layoutPlot>[3]} [options]
 * @returns {{ svg: SVGSVGElement, layout: Layout, mark: (step: number | null) => void }} mark points out a
 * step, or none
 */
export function drawPlot(data, width, height, options = {}) {
  const { live = null, hasLegend = true } = options;
  const layout = layoutPlot(data, width, height, options);
  const marks = group("marks");
  const svg = picture("", width, height, [
    create("title", {}, [description(data)]),
    ...(data.reused ? [drawBands(data.reused, layout), drawStrip(data, layout)] : []),
    ...(live ? [drawRun(live, data.reused !== null, layout)] : []),
    drawGrid(layout),
    ...layout.curves.map((curve) => drawCurve(curve, layout.xs, data.reused)),
    ...(hasLegend ? [drawLegend(layout, data.reused?.includes(true))] : []),
    drawLabels(layout),
    marks,
  ]);
  svg.setAttribute("role", "img");
  const mark = (step) => marks.replaceChildren(...(step === null ? [] : drawMarks(step, layout)));
  return { svg, layout, mark };
}

/**
 * The trajectory in space.
 * @param {PlotData & { path: number[][] }} data
 * @param {number} width in pixels
 * @param {number} height in pixels
 * @param {{ yaw: number, pitch: number }} view
 * @returns {{ svg: SVGSVGElement }}
 */
export function drawSpace(data, width, height, view) {
  const scale = Math.max(1, Math.min(width, height) / 2 - SPACE_MARGIN) / SPACE_REACH;
  const place = (point) => {
    const [x, y] = projected(point, view);
    return [width / 2 + x * scale, height / 2 + y * scale];
  };
  const corner = [-1, -1, -1];
  const ends = SPACE_AXES.map((_, axis) => place(corner.map((value, each) => (each === axis ? 1 : value))));
  const points = fitted(data.path).map(place);
  const [xs, ys] = [points.map(([x]) => x), points.map(([, y]) => y)];
  const marked = data.count <= MOST_SPACE_MARKERS ? points : [];
  const svg = picture(" space", width, height, [
    create("title", {}, ["The mean sampling trajectory in space, from the noise to the sample"]),
    group(
      "grid",
      ends.map((end) => line("", ...place(corner), ...end)),
    ),
    group("curve curvature", [
      path("line", linePath(xs, ys)),
      ...marked.map(([x, y], step) => marker(data.reused?.[step] ? "reused" : "computed", x, y, 2.5)),
    ]),
    group("labels", [
      ...ends.map((end, axis) => axisLabel(place(corner), end, SPACE_AXES[axis])),
      endLabel(points, points[0], "noise"),
      endLabel(points, points.at(-1), "sample"),
    ]),
  ]);
  svg.setAttribute("role", "img");
  return { svg };
}

/** Beside an end of the path, on the side where less of the path is. */
function endLabel(points, [x, y], text) {
  const centre = points.reduce((sum, point) => sum + point[0], 0) / points.length;
  const isRight = x >= centre;
  return label(isRight ? "start" : "end", x + (isRight ? END_DISTANCE : -END_DISTANCE), y + 3.5, text);
}

/** Beyond the end of an axis. */
function axisLabel([fromX, fromY], [x, y], text) {
  const length = Math.hypot(x - fromX, y - fromY) || 1;
  const beyond = (from, to) => to + (END_DISTANCE * (to - from)) / length;
  return label("middle faint", beyond(fromX, x), beyond(fromY, y) + 3.5, text);
}

/** A short piece of a curve's line, for the legend. @param {import("./plot_layout.js").CurveName} name */
export function drawSample(name) {
  const svg = picture("", 14, 8, [group(`curve ${name}`, [line("line", 1, 4, 13, 4)])]);
  svg.setAttribute("aria-hidden", "true");
  return svg;
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
function drawStrip({ reused, forced }, { cells, strip }) {
  const title = "The steps from first to last: filled = computed, hollow = reused, with a diamond = forced";
  const pins = forced.flatMap((kind, step) => {
    const x = (cells[step] + cells[step + 1]) / 2;
    const mark = reused[step] ? "pin on-hollow" : "pin";
    return kind ? [path(mark, diamond(x, (strip.top + strip.bottom) / 2, PIN_RADIUS))] : [];
  });
  return drawCells("strip", title, reused, cells, strip, pins);
}

/** The same for the steps of a sampling run that are done; a dot marks what was corrected or put right. */
function drawRun(live, hasStrip, { runCells, run, strip }) {
  const { kinds, repaid } = live;
  const reused = kinds.map((kind) => kind !== "full");
  const title =
    "The sampling run: filled = computed, with a dot = computed and the steps before put right; " +
    "hollow = reused, with a dot = reused and corrected";
  const dots = kinds.flatMap((kind, step) => {
    const width = runCells[step + 1] - runCells[step];
    const isMarked = kind === "corrected" || repaid[step];
    if (!isMarked || width < SPACING_FOR_CELLS) return [];
    const x = (runCells[step] + runCells[step + 1]) / 2;
    const className = kind === "corrected" ? "dot" : "dot repaid";
    return [create("circle", { class: className, cx: tidy(x), cy: (run.top + run.bottom) / 2, r: DOT_RADIUS })];
  });
  const names = hasStrip
    ? [
        label("end", run.left - 6, strip.bottom - 1.5, "plan"),
        label("end", run.left - 6, run.bottom - 1.5, "run"),
      ]
    : [label("end", run.left - 6, run.bottom - 1.5, "run")];
  const told = kinds.map((kind, step) => `step ${step}: ${liveFacts(live, step).join(", ")}`);
  return drawCells("strip run", title, reused, runCells, run, [...dots, ...names], told);
}

/** @param {string[]} [told] what each cell says of itself */
function drawCells(className, heading, reused, cells, box, marks, told = []) {
  const apart = narrowest(cells) >= SPACING_FOR_CELLS;
  const gap = apart ? 0.75 : 0;
  const computed = (start, end) =>
    rectangle("computed", cells[start] + gap, box.top, cells[end] - gap, box.bottom);
  const hollow = (start, end) => {
    const inset = 0.5; // half of the outline
    const [left, right] = [cells[start] + gap + inset, cells[end] - gap - inset];
    return rectangle("reused", left, box.top + inset, right, box.bottom - inset);
  };
  const title = create("title", {}, [heading]);
  if (apart) {
    const drawn = reused.map((value, step) => (value ? hollow : computed)(step, step + 1));
    drawn.forEach((cell, step) => told[step] && cell.append(create("title", {}, [told[step]])));
    return group(className, [title, ...drawn, ...marks]);
  }
  const runs = runsOf(reused).filter((run) => !run.value);
  return group(className, [
    title,
    hollow(0, reused.length),
    ...runs.map((run) => computed(run.start, run.end)),
    ...marks,
  ]);
}

/** Horizontal lines, which the axes share, and the labels of the axes. */
function drawGrid({ curves, frame }) {
  const heights = curves.length ? curves[0].ticks.map(({ y }) => y) : [frame.bottom];
  const labels = curves.flatMap(({ name, side, ticks }) =>
    (side ? ticks : []).map((tick) =>
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

/** What the lines and the bands are. */
function drawLegend({ curves }, hasBands) {
  const y = 11;
  let x = 2;
  const entry = (className, sample, text) => {
    const drawn = group(className, [sample, label("start", x + 21, y, text)]);
    x += 40 + text.length * CHARACTER_WIDTH;
    return drawn;
  };
  return group("legend", [
    ...curves.map(({ name }) => entry(`curve ${name}`, line("line", x, y - 3.5, x + 16, y - 3.5), name)),
    ...(hasBands ? [entry("bands", rectangle("", x + 2, y - 9, x + 14, y + 2), "reused")] : []),
  ]);
}

/** Two rows under the plot, what the steps are placed by first. */
function drawLabels({ labels, rows, height }) {
  const [upper, lower] = [height - 15, height - 3];
  return group("labels", [
    label("start", 0, upper, rows[0]),
    label("start faint", 0, lower, rows[1]),
    ...labels.map((each) => label("middle", each.x, upper, each.upper)),
    ...labels.map((each) => label("middle faint", each.x, lower, each.lower)),
  ]);
}

function drawMarks(step, { curves, xs, frame, run }) {
  const points = curves
    .filter(({ ys }) => ys[step] !== null)
    .map(({ name, ys }) => group(`curve ${name}`, [marker("computed", xs[step], ys[step], 3.5)]));
  return [line("", xs[step], frame.top, xs[step], run.bottom), ...points];
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

function diamond(x, y, radius) {
  return `M${tidy(x - radius)} ${y}L${tidy(x)} ${y - radius}L${tidy(x + radius)} ${y}L${tidy(x)} ${y + radius}Z`;
}

function tidy(value) {
  return Math.round(value * 100) / 100;
}
