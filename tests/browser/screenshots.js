/**
 * Takes pictures of the plot for people to judge, into tests/browser/out/: both renderers, dark and light,
 * three widths, empty and filled. Run it with `python tests/browser/run.py tests/browser/screenshots.js`.
 */

import { mkdir } from "node:fs/promises";

import { PROFILE, RENDERERS, openClient, runWorkflow, settle, showNodes, startBrowser } from "./client.js";

const OUT = new URL("./out/", import.meta.url);
const WIDTHS = [250, 400, 700];
const HINTS_TO_HIDE = ".p-toast, [class*=top-banner]";

const scheduler = (width) => ({
  type: "CurvatureScheduler",
  size: [width, 100],
  widgets_values: [PROFILE],
});

await mkdir(OUT, { recursive: true });
const browser = await startBrowser();
for (const { renderer, vueNodes } of RENDERERS) {
  for (const palette of ["dark", "light"]) {
    const page = await openClient(browser, { vueNodes, palette, width: 1600, height: 800 });
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

    await showNodes(page, [scheduler(250), { type: "TrajectoryCalibrator" }]);
    await shoot("empty");
    await page.close();
  }
}
await browser.close();
