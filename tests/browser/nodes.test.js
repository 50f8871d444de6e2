/** What OmniCache Auto and OmniCache Report show, and the plot's ways to look at a profile. Started by run.py. */

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import {
  PROFILE,
  RENDERERS,
  openClient,
  openExample,
  runWorkflow,
  settle,
  startBrowser,
  watchErrors,
} from "./client.js";

const LEAST_CONTRAST = 4.5; // of WCAG 2.2, for small text
const AXES = ["timestep", "step", "log-SNR"];
let browser;

before(async () => {
  browser = await startBrowser();
});

after(() => browser?.close());

for (const { renderer, vueNodes } of RENDERERS) {
  describe(`${renderer} renderer`, () => {
    let page;
    let errors;

    before(async () => {
      page = await openClient(browser, { vueNodes, width: 1600 });
      errors = watchErrors(page);
    });

    after(() => page?.close());

    test("Auto says on the node how many steps are computed, at the first run", async () => {
      const sampler_name = vueNodes ? "dpmpp_2m" : "euler";
      await openExample(page, "image_auto", {
        OmniCacheDemoLatent: { batch_size: 1 },
        KSampler: { sampler_name, steps: 12, seed: 1 },
      });
      await show(page, "OmniCacheAuto");
      await runWorkflow(page);
      await page.getByText("computes 6 of 12 steps, about 1.9x faster").waitFor();
    });

    test("Report shows its chart on the node", async () => {
      await openExample(page, "image_compare", {
        OmniCacheDemoLatent: { batch_size: 1 },
        CurvatureScheduler: { saved_profile: PROFILE },
        KSampler: { steps: 12 },
      });
      const report = await show(page, "OmniCacheReport");
      const outputs = await runWorkflow(page);
      const [{ filename }] = outputs[report].images;
      if (vueNodes) await page.locator(`img[src*="${encodeURIComponent(filename)}"]`).first().waitFor();
      else {
        await page.waitForFunction(
          ([id, name]) =>
            window.app.graph.getNodeById(id).imgs?.some(({ src, naturalHeight }) => naturalHeight && src.includes(name)),
          [report, encodeURIComponent(filename)],
        );
      }
    });

    test("the steps are placed by what the button says", async () => {
      await show(page, "CurvatureScheduler");
      const plot = page.locator(".omnicache-plot").first();
      const axis = plot.locator("button.axis");
      const seen = [];
      for (const _ of AXES) {
        const marks = await plot.locator(".picture circle.marker").evaluateAll((all) => all.map((one) => one.getAttribute("cx")));
        seen.push([await axis.textContent(), JSON.stringify(marks)]);
        await axis.click();
        await settle(page);
      }
      assert.deepEqual(seen.map(([name]) => name).toSorted(), AXES.toSorted());
      assert.equal(new Set(seen.map(([, marks]) => marks)).size, AXES.length);
    });

    test("the trajectory in space turns with the arrow keys", async () => {
      const plot = page.locator(".omnicache-plot").first();
      const drawn = () => plot.locator(".picture svg").innerHTML();
      const flat = await drawn();
      await plot.locator("button.space").click();
      assert.equal(await plot.locator("button.space").getAttribute("aria-pressed"), "true");
      const before = await drawn();
      await plot.locator(".picture").focus();
      await page.keyboard.press("ArrowRight");
      assert.notEqual(await drawn(), before);
      await plot.locator("button.space").click();
      assert.equal(await drawn(), flat);
    });

    for (const palette of ["dark", "light"]) {
      test(`the plot can be read with a ${palette} theme`, async () => {
        const other = await openClient(browser, { vueNodes, palette });
        await openExample(other, "image_generate", { CurvatureScheduler: { saved_profile: PROFILE } });
        const contrast = await other.evaluate(contrastOfCaption);
        await other.close();
        assert.ok(contrast >= LEAST_CONTRAST, `contrast ${contrast}`);
      });
    }

    test("nothing went wrong in the page", () => {
      assert.deepEqual(errors, []);
    });
  });
}

/** Brings the first node of a type into view. @returns {Promise<number>} its id */
async function show(page, type) {
  const id = await page.evaluate((wanted) => {
    const { canvas, graph } = window.app;
    const node = graph.nodes.find((each) => each.type === wanted);
    canvas.ds.scale = 1;
    canvas.ds.offset = [60 - node.pos[0], 90 - node.pos[1]];
    canvas.setDirty(true, true);
    return node.id;
  }, type);
  await settle(page);
  return id;
}

/** Runs in the page: WCAG's ratio of luminances of the plot's caption and its ground. */
function contrastOfCaption() {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d");
  const luminance = (colour) => {
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].map((byte) => {
      const share = byte / 255;
      return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const plot = document.querySelector(".omnicache-plot");
  const pair = [getComputedStyle(plot.querySelector(".caption")).color, getComputedStyle(plot).backgroundColor];
  const [dark, light] = pair.map(luminance).toSorted((a, b) => a - b);
  return (light + 0.05) / (dark + 0.05);
}
