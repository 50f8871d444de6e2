/**
 * Takes pictures of the plot for people to judge, into tests/browser/out/: both renderers, dark and light,
 * three widths, two zooms, new, empty and filled, with all curves, in space, and with a run and forced steps.
 * Run it with `python tests/browser/run.py tests/browser/screenshots.js`.
 */

import { mkdir } from "node:fs/promises";

import {
  PROFILE,
  RENDERERS,
  openClient,
  runWorkflow,
  settle,
  showNodes,
  startBrowser,
  zoomTo,
} from "./client.js";

const OUT = new URL("./out/", import.meta.url);
const WIDTHS = [250, 400, 700];
const HINTS_TO_HIDE = ".p-toast, [class*=top-banner]";

const scheduler = (width) => ({
  type: "CurvatureScheduler",
  size: [width, width], // at least as high as it has to be
  widgets_values: [PROFILE],
});

await mkdir(OUT, { recursive: true });
const browser = await startBrowser();
for (const { renderer, vueNodes } of RENDERERS) {
  for (const palette of ["dark", "light"]) {
    const page = await openClient(browser, { vueNodes, palette, width: 1600, height: 1000 });
    const shoot = async (name) => {
      await page.addStyleTag({ content: `${HINTS_TO_HIDE} { visibility: hidden }` });
      await settle(page);
      const file = `${renderer === "canvas" ? "canvas" : "nodes2"}-${palette}-${name}.png`;
      await page.screenshot({ path: new URL(file, OUT).pathname });
      console.log(file);
    };

    await showNodes(page, WIDTHS.map(scheduler));
    await runWorkflow(page);
    const box = await page.locator(".omnicache-plot .picture").last().boundingBox();
    await page.mouse.move(box.x + box.width * 0.4, box.y + box.height / 2);
    await shoot("filled");

    const plots = page.locator(".omnicache-plot");
    for (const name of ["error", "gain"]) await plots.nth(1).locator(`.toggle.${name}`).click();
    await plots.nth(1).locator(".axis").click();
    await plots.nth(0).locator(".space").click();
    await plots.nth(2).locator(".axis").click({ clickCount: 2 });
    await page.evaluate(() => {
      const kinds = Array.from({ length: 14 }, (_, step) => ["full", "reused", "corrected"][step % 3]);
      const milliseconds = kinds.map((kind) => (kind === "full" ? 41.3 : 1.62));
      const repaid = kinds.map((kind, step) => (kind === "full" && step ? 0.004 : 0));
      const detail = { node: "3", steps: 20, kinds, milliseconds, repaid };
      window.comfyAPI.api.api.dispatchEvent(new CustomEvent("omnicache.step", { detail }));
    });
    const picture = plots.nth(2).locator(".picture");
    await picture.focus();
    for (const key of ["Home", ...Array(6).fill("ArrowRight"), "f", ...Array(5).fill("ArrowRight"), "r"]) {
      await page.keyboard.press(key);
    }
    await shoot("tools");
    for (const zoom of [0.6, 1.6]) {
      await zoomTo(page, zoom);
      await shoot(`zoom-${zoom}`);
    }
    await zoomTo(page, 1);

    await showNodes(page, [scheduler(250), { type: "TrajectoryCalibrator" }]);
    await page.evaluate(() => {
      const node = window.LiteGraph.createNode("CurvatureScheduler"); // as large as a new one is
      node.pos = [820, 0];
      window.app.graph.add(node);
    });
    await shoot("empty");
    await page.close();
  }
}
await browser.close();
