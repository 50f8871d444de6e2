/** The plot as it sits in a node: caption, tools, picture, values under the pointer, a hint while it is empty. */

import { parseOverrides, writeOverrides } from "./plan.js";
import { caption, liveCaption, readLive, readPayload, stepFacts, withSettings } from "./plot_data.js";
import { download, standalone } from "./plot_export.js";
import { AXIS_NAMES, CURVE_NAMES, FIRST_LOOK } from "./plot_layout.js";
import { nearestStep, pointerOffset } from "./plot_math.js";
import { FIRST_VIEW } from "./plot_space.js";
import { drawPlot, drawSample, drawSketch, drawSpace } from "./plot_svg.js";

const TOOLTIP_DISTANCE = 10;
const CLICK_DISTANCE = 4; // a pointer that moved farther has dragged
const TURN = 0.01; // radians a pixel
const KEY_TURN = 0.15; // radians a key
const SAVED_SIZE = [760, 400];

const KEYS_HELP = "Steps of the plot: arrow keys go from one to the next";
const FORCE_HELP = "; f computes a step, r reuses it, Delete leaves it to the plan";

const CURVE_HELP = {
  curvature: "Turning angle of the sampling trajectory at each step",
  gamma: "Factor by which the error measured at a computed step predicts that of the next step",
  error: "Measured error of reusing the step before, percent of the model's output",
  gain: "Share of that error which gamma predicts, so that correction can remove it",
};

/**
 * @typedef {object} PlotHost what a plot reads from and writes to its node
 * @property {(name: string) => unknown} input value of an input; undefined where it is not known here
 * @property {(text: string) => void} setOverrides writes the input overrides
 * @property {() => Partial<import("./plot_layout.js").Look> | undefined} look as the user has left it
 * @property {(look: import("./plot_layout.js").Look) => void} setLook
 */

/** @type {PlotHost} */
const NO_HOST = { input: () => undefined, setOverrides() {}, look: () => undefined, setLook() {} };

export class PlotView {
  /**
   * @param {string} hint what to do to see a plot
   * @param {PlotHost} [host]
   */
  constructor(hint, host = NO_HOST) {
    this.hint = hint;
    this.host = host;
    this.measured = null; // as the node sent it
    this.data = null; // with the plan that the node's inputs make now
    this.inputs = {};
    this.live = null;
    this.isSampling = false;
    this.drawing = null;
    this.step = null;
    this.view = FIRST_VIEW;
    this.isSpace = false;

    this.caption = html("span", "caption");
    this.title = html("span", "title");
    this.note = html("div", "note");
    this.note.setAttribute("role", "status");
    this.picture = html("div", "picture");
    this.tooltip = html("div", "tooltip");
    this.tooltip.setAttribute("role", "status");
    this.createTools();
    // The client's Nodes 2.0 let a widget grow with its node if it has the class widget-expands.
    this.element = html("div", "omnicache-plot widget-expands", [
      html("div", "head", [this.caption, this.title]),
      this.picture,
      this.note,
      this.tooltip,
    ]);

    this.picture.tabIndex = 0;
    this.picture.setAttribute("role", "group");
    this.picture.addEventListener("pointermove", (event) => this.focusAt(event.clientX));
    this.picture.addEventListener("pointerleave", () => this.focus(null));
    this.picture.addEventListener("blur", () => this.focus(null));
    this.picture.addEventListener("keydown", (event) => this.pressKey(event));
    // A press is captured by the whole element, so what follows it arrives there, and no click comes of it.
    this.element.addEventListener("pointerdown", ({ clientX, clientY }) => {
      this.pressed = this.turnedFrom = [clientX, clientY];
    });
    this.element.addEventListener("pointermove", (event) => this.dragTo(event));
    this.element.addEventListener("pointerup", (event) => this.clickAt(event));
    new ResizeObserver(() => this.draw()).observe(this.picture);
    this.show(null);
  }

  createTools() {
    const button = (className, label, help, press) => {
      const made = html("button", className, label);
      made.type = "button";
      made.title = help;
      made.addEventListener("click", press);
      return made;
    };
    this.toggles = CURVE_NAMES.map((name) =>
      button(`toggle ${name}`, [drawSample(name), name], CURVE_HELP[name], () => this.toggleCurve(name)),
    );
    this.axis = button("axis", [], "What the steps are placed by; a click changes it", () =>
      this.changeAxis(),
    );
    const turn = "The mean trajectory in space; drag it, or turn it with the arrow keys";
    this.space = button("space", ["3-D"], turn, () => this.toggleSpace());
    const save = button("save", ["SVG"], "Save the picture as an SVG file", () => this.save());
    const buttons = html("span", "buttons", [this.axis, this.space, save]);
    this.tools = html("div", "tools", [...this.toggles, buttons]);
  }

  /** @param {unknown} payload what the node sent; anything that cannot be drawn shows the empty state */
  show(payload) {
    this.measured = readPayload(payload);
    this.step = null;
    this.refresh();
  }

  /** Plans anew if the node's inputs have changed. */
  followInputs() {
    if (JSON.stringify(this.readInputs()) !== JSON.stringify(this.inputs)) this.refresh();
  }

  /** The inputs that count for the plan, as far as they are known. */
  readInputs() {
    const names = Object.keys(this.measured?.settings ?? {});
    const read = names.map((name) => [name, this.host.input(name)]);
    return Object.fromEntries(read.filter(([, value]) => value !== undefined));
  }

  refresh() {
    const { measured } = this;
    this.inputs = this.readInputs();
    this.data = measured && withSettings(measured, this.inputs);
    this.element.classList.toggle("empty", this.data === null);
    if (this.data === null) this.tools.remove();
    else if (!this.tools.parentNode) this.picture.before(this.tools);
    this.element.classList.toggle("editable", this.isEditable);
    this.picture.setAttribute("aria-label", this.isEditable ? `${KEYS_HELP}${FORCE_HELP}` : KEYS_HELP);
    setText(this.title, this.data?.title ?? "");
    this.say(this.data?.note ?? "");
    this.tellState();
    this.draw();
  }

  get isEditable() {
    return Boolean(this.data?.reused && this.data.replan && "overrides" in this.inputs);
  }

  get look() {
    const { curves, axis } = Object(this.host.look());
    return {
      curves: Array.isArray(curves) ? CURVE_NAMES.filter((name) => curves.includes(name)) : FIRST_LOOK.curves,
      axis: AXIS_NAMES.includes(axis) ? axis : FIRST_LOOK.axis,
    };
  }

  /** Shows the steps of a sampling run as they are done. @param {unknown} message of the event omnicache.step */
  showLive(message) {
    this.live = readLive(message);
    this.isSampling = this.live !== null && !message.isOver && this.live.kinds.length < this.live.steps;
    this.tellState();
    if (this.isAwaitingFrame || !this.data) return;
    this.isAwaitingFrame = true; // steps may come faster than they can be drawn
    requestAnimationFrame(() => {
      this.isAwaitingFrame = false;
      this.draw();
    });
  }

  /** Sampling has ended, perhaps before its last step. */
  endLive() {
    this.isSampling = false;
    this.tellState();
  }

  tellState() {
    const text = !this.data ? "" : this.isSampling ? liveCaption(this.live) : caption(this.data);
    setText(this.caption, text);
    const steps = this.live?.steps;
    if (this.data && !this.data.note && steps && steps !== this.data.count) {
      this.say(`The run has ${steps} steps, the plot ${this.data.count}; overrides count those of the run.`);
    }
  }

  /** One line under the picture. */
  say(text) {
    setText(this.note, text);
  }

  /** Draws anew, in the size that the element has now. */
  draw() {
    const { clientWidth: width, clientHeight: height } = this.picture;
    const { data, step, look } = this;
    const isSpace = this.isSpace && data?.path;
    this.drawing = null;
    if (data && width && height) {
      this.drawing = isSpace
        ? drawSpace(data, width, height, this.view)
        : drawPlot(data, width, height, { look, live: this.live, hasLegend: false });
    }
    this.picture.replaceChildren(
      this.drawing?.svg ?? html("div", "hint", data ? [] : [drawSketch(), this.hint]),
    );
    this.toggles.forEach((toggle, index) => {
      toggle.setAttribute("aria-pressed", String(look.curves.includes(CURVE_NAMES[index])));
      toggle.hidden = Boolean(isSpace);
    });
    setLabel(this.axis, look.axis);
    this.axis.hidden = Boolean(isSpace);
    this.space.hidden = !data?.path;
    this.space.setAttribute("aria-pressed", String(Boolean(isSpace)));
    this.step = null;
    this.focus(isSpace ? null : step);
  }

  toggleCurve(name) {
    const { curves, axis } = this.look;
    const shown = curves.includes(name) ? curves.filter((each) => each !== name) : [...curves, name];
    this.host.setLook({ curves: shown, axis });
    this.draw();
  }

  changeAxis() {
    const { curves, axis } = this.look;
    const next = AXIS_NAMES[(AXIS_NAMES.indexOf(axis) + 1) % AXIS_NAMES.length];
    this.host.setLook({ curves, axis: next });
    this.draw();
  }

  toggleSpace() {
    this.isSpace = !this.isSpace;
    this.draw();
  }

  /** @param {number} yaw @param {number} pitch by how much, in radians */
  turn(yaw, pitch) {
    const limited = Math.min(Math.max(this.view.pitch + pitch, -Math.PI / 2), Math.PI / 2);
    this.view = { yaw: this.view.yaw + yaw, pitch: limited };
    this.draw();
  }

  save() {
    if (!this.data) return;
    const [width, height] = SAVED_SIZE;
    const { svg } =
      this.isSpace && this.data.path
        ? drawSpace(this.data, width, height, this.view)
        : drawPlot(this.data, width, height, { look: this.look, live: this.live });
    this.picture.append(svg);
    const text = standalone(svg, getComputedStyle(this.element).backgroundColor);
    svg.remove();
    download(`${this.data.title.replace(/[^\w.-]+/g, "_") || "omnicache"}.svg`, text);
  }

  /** @param {number} clientX where the pointer is in the window */
  focusAt(clientX) {
    if (!this.drawing?.layout) return;
    this.focus(this.stepAt(clientX));
  }

  stepAt(clientX) {
    const x = pointerOffset(clientX, this.picture.getBoundingClientRect(), this.picture.clientWidth);
    return nearestStep(this.drawing.layout.cells, x);
  }

  /** @param {PointerEvent} event */
  dragTo({ buttons, clientX, clientY }) {
    if (!(buttons & 1) || !this.drawing || this.drawing.layout || !this.turnedFrom) return;
    const [x, y] = this.turnedFrom;
    this.turnedFrom = [clientX, clientY];
    this.turn((clientX - x) * TURN, (clientY - y) * TURN);
  }

  /** @param {PointerEvent} event */
  clickAt({ target, button, clientX, clientY }) {
    if (button !== 0) return;
    const [x, y] = this.pressed ?? [clientX, clientY];
    const isDrag = Math.hypot(clientX - x, clientY - y) > CLICK_DISTANCE;
    const box = this.picture.getBoundingClientRect();
    const isInside = clientY >= box.top && clientY < box.top + box.height;
    if (isDrag || !isInside || target.closest("button") || !this.drawing?.layout) return;
    this.force(this.stepAt(clientX), "toggle");
  }

  /** @param {KeyboardEvent} event */
  pressKey(event) {
    if (!this.drawing || event.ctrlKey || event.metaKey || event.altKey) return;
    const isKnown = this.drawing.layout ? this.focusByKey(event.key) : this.turnByKey(event.key);
    if (!isKnown) return;
    event.preventDefault();
    event.stopPropagation(); // else the client moves the node, or deletes it
  }

  /** @returns {boolean} whether the key means something here */
  focusByKey(key) {
    const kinds = { Enter: "toggle", " ": "toggle", f: "full", r: "reuse", Delete: null, Backspace: null };
    if (key in kinds) {
      if (this.step === null || !this.isEditable) return false;
      this.force(this.step, kinds[key]);
      return true;
    }
    const last = this.data.count - 1;
    const step = this.step ?? -1;
    const steps = { ArrowRight: step + 1, ArrowLeft: step - 1, Home: 0, End: last, Escape: null };
    if (!(key in steps)) return false;
    const next = steps[key];
    this.focus(next === null ? null : Math.min(Math.max(next, 0), last));
    return true;
  }

  turnByKey(key) {
    const turns = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (!(key in turns)) return false;
    this.turn(...turns[key].map((times) => times * KEY_TURN));
    return true;
  }

  /**
   * Writes into the node's overrides, if there is a plan around them.
   * @param {number} step
   * @param {"full" | "reuse" | "toggle" | null} kind null: not forced any more; toggle: to what it is not
   */
  force(step, kind) {
    if (!this.isEditable) return;
    const forced = parseOverrides(this.inputs.overrides);
    const wanted =
      kind !== "toggle" ? kind : this.data.forced[step] ? null : this.data.reused[step] ? "full" : "reuse";
    forced.full.delete(step);
    forced.reuse.delete(step);
    if (wanted) forced[wanted].add(step);
    const text = writeOverrides(forced);
    const tried = withSettings(this.measured, { ...this.inputs, overrides: text });
    if (!tried.reused) return this.say(tried.note);
    this.host.setOverrides(text);
    return this.refresh();
  }

  /** Marks a step and shows its values, or none. @param {number | null} step */
  focus(step) {
    if (step === this.step && step !== null) return;
    this.step = this.drawing?.layout ? step : null;
    this.drawing?.mark?.(this.step);
    this.tooltip.hidden = this.step === null;
    if (this.step === null) return;
    const { heading, state, facts } = stepFacts(this.data, this.step, this.live);
    const rows = facts.flatMap(([name, value]) => [
      html("dt", name.replace(" ", "-"), [name]),
      html("dd", "", [value]),
    ]);
    this.tooltip.replaceChildren(
      html("div", "heading", [
        html("span", "", [heading]),
        html("span", this.data.reused?.[this.step] ? "state reused" : "state", [state]),
      ]),
      html("dl", "", rows),
      ...(this.isEditable ? [html("div", "action", [this.actionOn(this.step)])] : []),
    );
    this.placeTooltip();
  }

  actionOn(step) {
    if (this.data.forced[step]) return "click: no longer forced";
    return this.data.reused[step] ? "click: compute it" : "click: reuse it";
  }

  /** Beside the marked step, on the side that has more room. */
  placeTooltip() {
    const { xs, frame, width } = this.drawing.layout;
    const x = this.picture.offsetLeft + xs[this.step];
    const onLeft = xs[this.step] > width / 2;
    this.tooltip.style.left = onLeft ? "auto" : `${x + TOOLTIP_DISTANCE}px`;
    this.tooltip.style.right = onLeft ? `${this.element.clientWidth - x + TOOLTIP_DISTANCE}px` : "auto";
    this.tooltip.style.top = `${this.picture.offsetTop + frame.top}px`;
  }
}

function html(tag, className, children = []) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...children); // strings become text nodes, never markup
  return element;
}

function setText(element, text) {
  element.textContent = text;
  element.title = text;
}

function setLabel(button, text) {
  if (button.textContent !== text) button.textContent = text;
}
