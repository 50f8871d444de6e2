/** The front-end extension: a plot at the end of the nodes that have one, fed by what those nodes put out. */

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { PlotView } from "./plot_view.js";

const WIDGET = "omnicache_plot"; // also the name under which the nodes send the data
const LEAST_HEIGHT = 220;
const FIRST_WIDTH = 330; // of a new node; it can be made narrower

/** The nodes that have a plot, and what they show before they have run. */
const HINTS = {
  TrajectoryCalibrator: "Run the workflow: connect model, positive, negative and a latent",
  CurvatureScheduler: "Connect a profile or pick a saved one, then run",
};

/** @type {WeakMap<object, PlotView>} by node */
const plots = new WeakMap();

/** @type {Map<object, object>} what nodes have put out since a prompt was last queued, by node */
const recent = new Map();

function addPlot(node) {
  const plot = new PlotView(HINTS[node.comfyClass]);
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

  const [width, height] = node.computeSize();
  node.setSize([Math.max(width, FIRST_WIDTH), height]);

  const onExecuted = node.onExecuted;
  node.onExecuted = function (output) {
    onExecuted?.apply(this, arguments);
    if (output) recent.set(this, output);
    showOutput(this, output);
  };
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
  const tracker = app.extensionManager?.workflow?.activeWorkflow?.changeTracker;
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
    api.addEventListener("promptQueued", keepEarlyOutputs);
  },

  nodeCreated(node) {
    if (Object.hasOwn(HINTS, node.comfyClass)) addPlot(node);
  },

  /** Restores the plots after the graph was rebuilt: another tab, undo, a run from the history. */
  onNodeOutputsUpdated(outputs) {
    for (const [key, output] of Object.entries(outputs ?? {})) {
      const node = output && WIDGET in output && nodeOf(key);
      if (node) showOutput(node, output);
    }
  },
});
