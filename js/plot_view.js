/** The plot as it sits in a node: caption, picture, values under the pointer, a hint while it is empty. */

import { caption, readPayload, stepFacts } from "./plot_data.js";
import { nearestStep, pointerOffset } from "./plot_math.js";
import { drawPlot, drawSketch } from "./plot_svg.js";

const TOOLTIP_DISTANCE = 10;

export class PlotView {
  /** @param {string} hint what to do to see a plot */
  constructor(hint) {
    this.hint = hint;
    this.data = null;
    this.drawing = null;
    this.step = null;

    this.caption = html("span", "caption");
    this.title = html("span", "title");
    this.note = html("div", "note");
    this.picture = html("div", "picture");
    this.tooltip = html("div", "tooltip");
    this.tooltip.setAttribute("role", "status");
    // The client's Nodes 2.0 let a widget grow with its node if it has the class widget-expands.
    this.element = html("div", "omnicache-plot widget-expands", [
      html("div", "head", [this.caption, this.title]),
      this.picture,
      this.note,
      this.tooltip,
    ]);

    this.picture.tabIndex = 0;
    this.picture.addEventListener("pointermove", (event) => this.focusAt(event.clientX));
    this.picture.addEventListener("pointerleave", () => this.focus(null));
    this.picture.addEventListener("blur", () => this.focus(null));
    this.picture.addEventListener("keydown", (event) => this.focusByKey(event));
    new ResizeObserver(() => this.draw()).observe(this.picture);
    this.show(null);
  }

  /** @param {unknown} payload what the node sent; anything that cannot be drawn shows the empty state */
  show(payload) {
    this.data = readPayload(payload);
    this.element.classList.toggle("empty", this.data === null);
    setText(this.caption, this.data ? caption(this.data) : "");
    setText(this.title, this.data?.title ?? "");
    setText(this.note, this.data?.note ?? "");
    this.draw();
  }

  /** Draws anew, in the size that the element has now. */
  draw() {
    const { clientWidth: width, clientHeight: height } = this.picture;
    this.drawing = this.data && width && height ? drawPlot(this.data, width, height) : null;
    this.picture.replaceChildren(
      this.drawing?.svg ?? html("div", "hint", this.data ? [] : [drawSketch(), this.hint]),
    );
    this.focus(null);
  }

  /** @param {number} clientX where the pointer is in the window */
  focusAt(clientX) {
    if (!this.drawing) return;
    const x = pointerOffset(clientX, this.picture.getBoundingClientRect(), this.picture.clientWidth);
    this.focus(nearestStep(this.drawing.layout.cells, x));
  }

  /** @param {KeyboardEvent} event */
  focusByKey(event) {
    if (!this.drawing) return;
    const last = this.data.count - 1;
    const step = this.step ?? -1;
    const steps = { ArrowRight: step + 1, ArrowLeft: step - 1, Home: 0, End: last, Escape: null };
    if (!(event.key in steps)) return;
    event.preventDefault();
    event.stopPropagation(); // else the client moves the node
    const next = steps[event.key];
    this.focus(next === null ? null : Math.min(Math.max(next, 0), last));
  }

  /** Marks a step and shows its values, or none. @param {number | null} step */
  focus(step) {
    if (step === this.step && step !== null) return;
    this.step = this.drawing ? step : null;
    this.drawing?.mark(this.step);
    this.tooltip.hidden = this.step === null;
    if (this.step === null) return;
    const { heading, state, facts } = stepFacts(this.data, this.step);
    this.tooltip.replaceChildren(
      html("div", "heading", [html("span", "", [heading]), html("span", `state ${state}`, [state])]),
      html(
        "dl",
        "",
        facts.flatMap(([name, value]) => [html("dt", name, [name]), html("dd", "", [value])]),
      ),
    );
    this.placeTooltip();
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
