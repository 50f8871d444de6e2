/** The front-end extension: a plot at the end of the nodes that have one, fed by what those nodes put out. */

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { holderOf, isConnected, nodeOf, nodesOf } from "./inputs.js";
import { KEPT, pack, unpack, withProperty } from "./kept.js";
import { PlotView } from "./plot_view.js";

const WIDGET = "omnicache_plot"; // also the name under which the nodes send the data
const OVERRIDES = "overrides"; // the input that a click on a step writes to
const LOOK = "omnicache plot"; // property of the node: which curves are shown, and over what
const LEAST_HEIGHT = 220;
const FIRST_WIDTH = 420; // of a new node; it can be made narrower
const FIRST_HEIGHT = 300; // of its plot

/** The nodes that have a plot, and what they show before they have run. */
const HINTS = {
  TrajectoryCalibrator: "Run the workflow: connect model, positive, negative and a latent",
  CurvatureScheduler: "Connect a profile or pick a saved one, then run",
};

/** @type {WeakMap<object, PlotView>} by node */
const plots = new WeakMap();

/**
 * What this page was told of each workflow, by the keys of its nodes: the last sampling run, and whether
 * there was a plot.
 * @type {WeakMap<object, { runs: Map<string, object>, measured: Set<string> }>}
 */
const news = new WeakMap();

/** @type {{ prompt?: string, workflow?: object }} what the server is at, and whose it is, if that is known */
let running = {};

function addPlot(node) {
  const holder = (name) => holderOf(node, name, root());
  const plot = new PlotView(HINTS[node.comfyClass], {
    input: (name) =>
      name === "saved_profile" && isConnected(node, "profile") ? undefined : holder(name)?.widget.value,
    setOverrides: (text) => setWidget(holder(OVERRIDES), text),
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

  for (const input of node.widgets) {
    if (input === widget) continue;
    const { callback } = input;
    input.callback = function () {
      const result = callback?.apply(this, arguments);
      plot.followInputs();
      return result;
    };
  }

  const [width, height] = node.computeSize();
  node.setSize([Math.max(width, FIRST_WIDTH), height + FIRST_HEIGHT - LEAST_HEIGHT]);

  const { onConfigure } = node;
  node.onConfigure = function () {
    onConfigure?.apply(this, arguments);
    plot.show(unpack(this.properties[KEPT]));
  };
}

/** As if the user had typed it. */
function setWidget({ node, widget }, value) {
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

function root() {
  return app.rootGraph ?? app.graph;
}

function activeWorkflow() {
  return app.extensionManager?.workflow?.activeWorkflow;
}

function newsOf(workflow) {
  if (!news.has(workflow)) news.set(workflow, { runs: new Map(), measured: new Set() });
  return news.get(workflow);
}

/** A node that was cached may say null, which is no news; an empty list says that there is no plot. */
function receive({ detail }) {
  const { output, prompt_id: prompt } = Object(detail);
  if (!output || !(WIDGET in output)) return;
  const key = String(detail.display_node || detail.node);
  running = { prompt, workflow: workflowOf(output, detail.node) };
  const { workflow } = running;
  if (!workflow) return;
  newsOf(workflow).measured.add(key);
  // Front-ends do not note what comes before the server's answer to the prompt, as it does from fast nodes.
  const { changeTracker } = workflow;
  changeTracker.nodeOutputs ??= {};
  changeTracker.nodeOutputs[detail.node] = output;
  keep(workflow, key, output[WIDGET]?.[0]);
}

/**
 * The workflow that an output belongs to: the one that the client has noted it under, else the one in front,
 * whose prompt the server has not answered yet.
 */
function workflowOf(output, id) {
  const open = app.extensionManager?.workflow?.openWorkflows ?? [];
  return open.find(({ changeTracker }) => changeTracker?.nodeOutputs?.[id] === output) ?? activeWorkflow();
}

/** Shows a plot, and keeps it with its node. That is no edit: undo neither stops at it nor takes it back. */
function keep(workflow, key, payload) {
  const text = pack(payload);
  const node = workflow === activeWorkflow() && nodeOf(key, root());
  if (node && plots.has(node)) {
    node.properties[KEPT] = text;
    replaceStale(node, plots.get(node).element);
    plots.get(node).show(payload);
  }
  const tracker = workflow.changeTracker;
  const before = tracker.activeState;
  const kept = (state) => state && withProperty(state, key, KEPT, text);
  tracker.activeState = kept(before);
  for (const states of [tracker.undoQueue, tracker.redoQueue]) {
    states.splice(0, Infinity, ...states.map(kept));
  }
  // Saves the workflow for the next load of the page; not where each change of it queues a prompt.
  const isQueuing = app.extensionManager?.queueSettings?.mode === "change";
  if (tracker.activeState !== before && !isQueuing) tracker.updateModified();
}

/** The steps of a sampling run go to the plot of the node that planned it. */
function showSteps({ detail }) {
  const workflow = running.workflow ?? activeWorkflow();
  const key = String(detail?.node);
  if (workflow) newsOf(workflow).runs.set(key, detail);
  if (workflow === activeWorkflow()) plots.get(nodeOf(key, root()))?.showLive(detail);
}

/** Sampling has ended, perhaps before its last step. */
function endSteps() {
  const workflow = running.workflow ?? activeWorkflow();
  for (const [key, run] of workflow ? newsOf(workflow).runs : []) {
    run.isOver = true;
    if (workflow === activeWorkflow()) plots.get(nodeOf(key, root()))?.endLive();
  }
}

function shownPlots() {
  return nodesOf(root()).flatMap((node) => plots.get(node) ?? []);
}

/**
 * When undo rebuilds the graph, Nodes 2.0 as of 1.32 go on showing the element of the node that was there
 * before under the same id; the node's own takes its place.
 */
function replaceStale(node, element) {
  if (element.isConnected || node.graph !== app.canvas?.graph) return;
  document.querySelector(`[data-node-id="${node.id}"] .omnicache-plot`)?.replaceWith(element);
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
    api.addEventListener("execution_start", ({ detail }) => {
      if (detail?.prompt_id !== running.prompt) running = { prompt: detail?.prompt_id };
    });
    api.addEventListener("executed", receive);
    api.addEventListener("omnicache.step", showSteps);
    for (const end of ["execution_success", "execution_error", "execution_interrupted"]) {
      api.addEventListener(end, endSteps);
    }
    // Inputs may be set on the node of a subgraph, or by a link.
    api.addEventListener("graphChanged", () => shownPlots().forEach((plot) => plot.followInputs()));
  },

  nodeCreated(node) {
    if (Object.hasOwn(HINTS, node.comfyClass)) addPlot(node);
  },

  /** The graph was rebuilt: another file or tab, or undo. */
  afterConfigureGraph() {
    for (const node of nodesOf(root())) {
      const plot = plots.get(node);
      if (!plot) continue;
      replaceStale(node, plot.element);
      plot.followInputs();
    }
  },

  /** And the outputs of its last run are back; those of a run out of the history are not yet in the graph. */
  onNodeOutputsUpdated(outputs) {
    const workflow = activeWorkflow();
    if (!workflow) return;
    const { runs, measured } = newsOf(workflow);
    for (const [key, output] of Object.entries(outputs ?? {})) {
      const plot = output && WIDGET in output && plots.get(nodeOf(key, root()));
      if (!plot) continue;
      if (!measured.has(key)) keep(workflow, key, output[WIDGET]?.[0]);
      if (runs.has(key)) plot.showLive(runs.get(key));
    }
  },
});
