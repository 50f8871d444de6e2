/** The front-end extension: a plot at the end of the nodes that have one, fed by what those nodes put out. */

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { PlotView } from "./plot_view.js";

const WIDGET = "omnicache_plot"; // also the name under which the nodes send the data
const OVERRIDES = "overrides"; // the input that a click on a step writes to
const LOOK = "omnicache plot"; // property of the node: which curves are shown, and over what
const LEAST_HEIGHT = 220;
const FIRST_WIDTH = 330; // of a new node; it can be made narrower

/** The nodes that have a plot, and what they show before they have run. */
const HINTS = {
  TrajectoryCalibrator: "Run the workflow: connect model, positive, negative and a latent",
  CurvatureScheduler: "Connect a profile or pick a saved one, then run",
};

/** @type {WeakMap<object, PlotView>} by node */
const plots = new WeakMap();

/** @type {WeakMap<object, Map<string, object>>} the last steps that each node was told, by workflow */
const lastRuns = new WeakMap();

/** @type {object | undefined} the workflow that was queued last */
let queued;

/** @type {Map<object, object>} what nodes have put out since a prompt was last queued, by node */
const recent = new Map();

function addPlot(node) {
  const overrides = node.widgets?.find(({ name }) => name === OVERRIDES);
  const plot = new PlotView(HINTS[node.comfyClass], {
    overrides: () => (overrides && !isConnected(node, OVERRIDES) ? String(overrides.value ?? "") : null),
    setOverrides: (text) => setWidget(node, overrides, text),
    look: () => node.properties[LOOK],
    setLook: (look) => changed(() => node.setProperty(LOOK, look)),
  });
  plots.set(node, plot);
  const widget = node.addDOMWidget(WIDGET, "omnicache.plot", plot.element, {
    serialize: false, // not in the prompt
    hideOnZoom: false,
    margin: 6,
    getMinHeight: () => LEAST_HEIGHT,
    getValue: () => "",
    setValue: () => {},
  });
  widget.serialize = false; // not in the workflow
  passToCanvas(plot.element);

  if (overrides) {
    const callback = overrides.callback;
    overrides.callback = function () {
      const result = callback?.apply(this, arguments);
      plot.refresh();
      return result;
    };
  }

  const [width, height] = node.computeSize();
  node.setSize([Math.max(width, FIRST_WIDTH), height]);

  const onExecuted = node.onExecuted;
  node.onExecuted = function (output) {
    onExecuted?.apply(this, arguments);
    if (output) recent.set(this, output);
    showOutput(this, output);
  };
}

/** Whether an input's value comes through a link, and the widget's counts for nothing. */
function isConnected(node, name) {
  return node.inputs?.some((input) => input.widget?.name === name && input.link != null);
}

/** As if the user had typed it. */
function setWidget(node, widget, value) {
  changed(() => {
    widget.value = value;
    widget.callback?.(value, app.canvas, node);
    node.setDirtyCanvas(true, true);
  });
}

/** Makes a change that undo takes back, and of which the workflow has to be saved. */
function changed(change) {
  const tracker = activeWorkflow()?.changeTracker;
  change();
  (tracker?.captureCanvasState ?? tracker?.checkState)?.call(tracker);
}

function activeWorkflow() {
  return app.extensionManager?.workflow?.activeWorkflow;
}

/** The steps of a sampling run go to the plot of the node that planned it. */
function showSteps({ detail }) {
  const workflow = queued ?? activeWorkflow();
  const key = String(detail?.node);
  if (workflow) {
    if (!lastRuns.has(workflow)) lastRuns.set(workflow, new Map());
    lastRuns.get(workflow).set(key, detail);
  }
  if (workflow === activeWorkflow()) plots.get(nodeOf(key))?.showLive(detail);
}

function endSteps() {
  for (const runs of [queued, activeWorkflow()].map((workflow) => workflow && lastRuns.get(workflow))) {
    for (const key of runs?.keys() ?? []) plots.get(nodeOf(key))?.endLive();
  }
}

/** A node that was cached may say null, which is no news; an empty list says that there is no plot. */
function showOutput(node, output) {
  const plot = plots.get(node);
  if (!plot || !output || !(WIDGET in output)) return;
  replaceStale(node, plot.element);
  plot.show(output[WIDGET]?.[0]);
}

/**
 * When undo rebuilds the graph, Nodes 2.0 as of 1.32 go on showing the element of the node that was there
 * before under the same id; the node's own takes its place.
 */
function replaceStale(node, element) {
  if (element.isConnected || node.graph !== app.canvas?.graph) return;
  document.querySelector(`[data-node-id="${node.id}"] .omnicache-plot`)?.replaceWith(element);
}

/** The node of an output's key: ids joined by colons, a subgraph's being its own or that of its node. */
function nodeOf(key) {
  const path = String(key).split(":");
  const id = path.pop();
  let graph = app.rootGraph ?? app.graph;
  for (const part of path) graph = app.graph?.subgraphs?.get(part) ?? graph?.getNodeById(part)?.subgraph;
  return graph?.getNodeById(id);
}

/**
 * Hands the client the outputs that came before the server's answer to their prompt, as those of fast nodes
 * do. Front-ends as of 1.32 forget them, and then have nothing to restore after undo or a change of tabs.
 */
function keepEarlyOutputs() {
  const tracker = activeWorkflow()?.changeTracker;
  for (const [node, output] of recent) {
    if (!tracker || node.graph !== app.graph) continue;
    tracker.nodeOutputs ??= {};
    tracker.nodeOutputs[node.id] = output;
  }
  recent.clear();
}

/**
 * Panning, zooming and the node's menu, which Nodes 2.0 open themselves, reach the canvas. Other presses stay
 * in the plot, so that they do not drag the node.
 */
function passToCanvas(element) {
  const pass = (event) => {
    event.preventDefault();
    event.stopPropagation();
    app.canvas.canvas.dispatchEvent(new event.constructor(event.type, event));
  };
  element.addEventListener("wheel", pass, { passive: false });
  element.addEventListener("pointerdown", (event) => {
    if (event.button === 0 && event.target.closest("button")) return event.stopPropagation();
    const opensMenu = event.button === 2 && !element.closest(".lg-node");
    if (event.button === 1 || opensMenu) pass(event);
    else if (event.button === 0) {
      event.stopPropagation();
      element.setPointerCapture(event.pointerId);
    }
  });
  element.addEventListener("pointermove", (event) => {
    if (event.buttons & 4) pass(event);
    else if (element.hasPointerCapture(event.pointerId)) event.stopPropagation();
  });
  element.addEventListener("pointerup", (event) => {
    if (event.button === 1) pass(event);
  });
  element.addEventListener("contextmenu", (event) => event.preventDefault());
}

function addStyle() {
  const link = document.createElement("link");
  link.rel = "stylesheet";
  link.href = new URL("./omnicache.css", import.meta.url).href;
  document.head.append(link);
}

app.registerExtension({
  name: "omnicache.plot",

  setup() {
    addStyle();
    api.addEventListener("promptQueued", () => {
      queued = activeWorkflow();
      keepEarlyOutputs();
    });
    api.addEventListener("omnicache.step", showSteps);
    for (const end of ["execution_success", "execution_error", "execution_interrupted"]) {
      api.addEventListener(end, endSteps);
    }
  },

  nodeCreated(node) {
    if (Object.hasOwn(HINTS, node.comfyClass)) addPlot(node);
  },

  /** Restores the plots after the graph was rebuilt: another tab, undo, a run from the history. */
  onNodeOutputsUpdated(outputs) {
    for (const [key, output] of Object.entries(outputs ?? {})) {
      const node = output && WIDGET in output && nodeOf(key);
      if (!node) continue;
      showOutput(node, output);
      const run = lastRuns.get(activeWorkflow() ?? outputs)?.get(key);
      if (run) plots.get(node)?.showLive(run);
    }
  },
});
