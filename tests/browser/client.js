/** Drives the real front-end in Chromium: opens it, puts nodes on the canvas and runs them. */

import { readFile } from "node:fs/promises";

import { chromium } from "playwright-core";

const FLAGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

/** The host under test, and a profile of 20 steps that is saved on it; run.py sets them. */
export const SERVER = process.env.OMNICACHE_SERVER;
export const PROFILE = process.env.OMNICACHE_PROFILE;

/** Both ways in which the client draws nodes. */
export const RENDERERS = [
  { renderer: "canvas", vueNodes: false },
  { renderer: "Nodes 2.0", vueNodes: true },
];

/** @returns {Promise<import("playwright-core").Browser>} */
export function startBrowser() {
  return chromium.launch({ executablePath: process.env.OMNICACHE_BROWSER, args: FLAGS });
}

/**
 * A page with the client ready and nothing on its canvas.
 * @param {import("playwright-core").Browser} browser
 * @param {{ vueNodes: boolean, palette?: "dark" | "light", width?: number, height?: number }} options
 */
export async function openClient(browser, { vueNodes, palette = "dark", width = 1280, height = 1100 }) {
  const page = await browser.newPage({ viewport: { width, height } });
  const settings = {
    "Comfy.TutorialCompleted": true, // else a template opens over the test's graph
    "Comfy.VueNodes.Enabled": vueNodes,
    "Comfy.VueNodes.AutoScaleLayout": false,
    "Comfy.ColorPalette": palette,
    "Comfy.Minimap.Visible": false,
    "Comfy.Workflow.Persist": false,
  };
  await page.request.post(`${SERVER}/settings`, { data: settings });
  await page.goto(SERVER);
  await page.waitForFunction(() => window.app?.vueAppReady && window.app.canvas);
  await showNodes(page, []);
  return page;
}

/**
 * Collects what goes wrong on the page, of the console only what the pack's own files say.
 * @returns {string[]} filled as it happens
 */
export function watchErrors(page) {
  const errors = [];
  page.on("pageerror", (error) => errors.push(String(error)));
  page.on("console", (message) => {
    if (message.type() === "error" && /omnicache\.(plot|js|css)|plot_?\w*\.js|plan\.js/.test(message.text()))
      errors.push(message.text());
  });
  return errors;
}

/**
 * Replaces the workflow by one of these nodes, side by side and not connected.
 * @param {import("playwright-core").Page} page
 * @param {{ type: string, size?: [number, number], widgets_values?: unknown[] }[]} nodes
 */
export async function showNodes(page, nodes) {
  let x = 0;
  const placed = nodes.map(({ type, size = [400, 100], widgets_values }, order) => {
    const pos = [x, 0];
    x += size[0] + 20;
    const rest = { order, mode: 0, flags: {}, inputs: [], outputs: [], properties: {}, widgets_values };
    return { id: order + 1, type, pos, size, ...rest };
  });
  const view = { ds: { scale: 1, offset: [80, 120] } };
  const ids = { last_node_id: nodes.length, last_link_id: 0 };
  const workflow = { ...ids, nodes: placed, links: [], groups: [], config: {}, extra: view, version: 0.4 };
  await page.evaluate((graph) => window.app.loadGraphData(graph), workflow);
  if (nodes.length) await page.locator(".omnicache-plot").first().waitFor();
}

/**
 * Opens one of the pack's example workflows.
 * @param {string} name
 * @param {Record<string, Record<string, unknown>>} widgets values to set, by node type and widget name
 */
export async function openExample(page, name, widgets) {
  const file = new URL(`../../example_workflows/${name}.json`, import.meta.url);
  const workflow = JSON.parse(await readFile(file, "utf8"));
  await page.evaluate(
    async ([graph, values]) => {
      await window.app.loadGraphData(graph);
      for (const node of window.app.graph.nodes) {
        for (const [widget, value] of Object.entries(values[node.type] ?? {})) {
          node.widgets.find((candidate) => candidate.name === widget).value = value;
        }
      }
    },
    [workflow, widgets],
  );
  if (workflow.nodes.some(({ type }) => type === "CurvatureScheduler"))
    await page.locator(".omnicache-plot").first().waitFor();
}

/** Sets widgets of the first node of a type, by name. */
export function setWidgets(page, type, values) {
  return page.evaluate(
    ([kind, given]) => {
      const root = window.app.rootGraph ?? window.app.graph;
      const node = root.nodes.find((candidate) => candidate.type === kind);
      for (const [name, value] of Object.entries(given)) {
        node.widgets.find((widget) => widget.name === name).value = value;
      }
    },
    [type, values],
  );
}

/**
 * Queues the workflow as the Run button does, and waits until it is done.
 * @returns {Promise<object>} the outputs of its nodes, by node id, from the server's history
 */
export async function runWorkflow(page) {
  const promptId = await page.evaluate(async () => {
    const { api } = window.comfyAPI.api;
    const finished = new Promise((resolve, reject) => {
      api.addEventListener("execution_success", (event) => resolve(event.detail.prompt_id), { once: true });
      api.addEventListener("execution_error", (event) => reject(event.detail.exception_message), {
        once: true,
      });
    });
    await window.app.queuePrompt(0);
    const errors = window.app.lastNodeErrors ?? {};
    if (Object.keys(errors).length) throw new Error(JSON.stringify(errors));
    return finished;
  });
  for (;;) {
    const history = await (await page.request.get(`${SERVER}/history/${promptId}`)).json();
    if (promptId in history) return history[promptId].outputs; // written a moment after the message
    await page.waitForTimeout(50);
  }
}

/** @param {number} scale of the canvas, 1 = 100 % */
export async function zoomTo(page, scale) {
  await page.evaluate((value) => {
    window.app.canvas.ds.scale = value;
    window.app.canvas.ds.offset = [80 / value, 120 / value];
    window.app.canvas.setDirty(true, true);
  }, scale);
  await settle(page);
}

/** Lets the client lay out and draw what was changed. */
export async function settle(page) {
  await page.waitForTimeout(300);
}

/** Position, size and view as the client knows them. */
export function nodeState(page, id = 1) {
  return page.evaluate((nodeId) => {
    const node = window.app.graph.getNodeById(nodeId);
    const { scale, offset } = window.app.canvas.ds;
    return { position: [...node.pos], size: [...node.size], scale, offset: [...offset] };
  }, id);
}
