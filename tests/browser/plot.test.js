/** The plot in the real front-end, on a real server, in both of its renderers. Started by run.py. */

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import {
  PROFILE,
  RENDERERS,
  nodeState,
  openClient,
  openExample,
  runWorkflow,
  settle,
  showNodes,
  startBrowser,
  watchErrors,
  zoomTo,
} from "./client.js";

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
      page = await openClient(browser, { vueNodes });
      errors = watchErrors(page);
    });

    after(() => page?.close());

    test("an empty plot says what to connect", async () => {
      await showNodes(page, [{ type: "TrajectoryCalibrator" }, { type: "CurvatureScheduler" }]);
      assert.deepEqual(await page.locator(".omnicache-plot .hint").allTextContents(), [
        "Run the workflow: connect model, positive, negative and a latent",
        "Connect a profile or pick a saved one, then run",
      ]);
    });

    test("calibrating draws the profile in the calibrator and the schedule in the scheduler", async () => {
      await openExample(page, "image_calibrate", {
        OmniCacheDemoLatent: { batch_size: 1 },
        TrajectoryCalibrator: { steps: 8, save_as: "" },
      });
      await runWorkflow(page);
      const captions = await page.locator(".omnicache-plot .caption").allTextContents();
      assert.deepEqual(captions.map((caption) => caption.split(" · ")[0]).toSorted(), [
        "4 of 8 computed",
        "8 steps measured",
      ]);
    });

    test("a run draws what the node put out", async () => {
      await showNodes(page, [{ type: "CurvatureScheduler", size: [700, 100], widgets_values: [PROFILE] }]);
      const outputs = await runWorkflow(page);
      const [{ reused, title }] = outputs[1].omnicache_plot;
      const full = reused.filter((value) => !value).length;
      const plot = page.locator(".omnicache-plot");
      assert.match(
        await plot.locator(".caption").textContent(),
        new RegExp(`^${full} of ${reused.length} computed`),
      );
      assert.equal(await plot.locator(".title").textContent(), title);
      assert.equal(await plot.locator(".strip .computed").count(), full);
      assert.equal(await plot.locator(".strip .reused").count(), reused.length - full);
      for (const curve of ["curvature", "gamma"]) {
        const box = await plot.locator(`.curve.${curve} path.line`).boundingBox();
        assert.ok(
          box.width > 300 && box.height > 3,
          `${curve} is drawn ${box.width} by ${box.height} pixels large`,
        );
      }
    });

    test("a run that finds everything cached keeps the plot", async () => {
      const before = await page.locator(".omnicache-plot .picture svg").innerHTML();
      await runWorkflow(page);
      assert.equal(await page.locator(".omnicache-plot .picture svg").innerHTML(), before);
    });

    for (const scale of [1, 1.6, 0.6]) {
      test(`the pointer shows the step under it at zoom ${scale}`, async () => {
        await zoomTo(page, scale);
        const cells = page.locator(".omnicache-plot .strip rect");
        const count = await cells.count();
        for (const step of [0, 1, Math.floor(count / 3), Math.floor(count / 2), count - 1]) {
          const cell = await cells.nth(step).boundingBox();
          const picture = await page.locator(".omnicache-plot .picture").boundingBox();
          await page.mouse.move(cell.x + cell.width / 2, picture.y + picture.height / 2);
          assert.equal(
            await page.locator(".omnicache-plot .heading span").first().textContent(),
            `step ${step}`,
          );
        }
        await zoomTo(page, 1);
      });
    }

    test("the values go away with the pointer", async () => {
      await page.mouse.move(5, 400);
      assert.equal(await page.locator(".omnicache-plot .tooltip").isVisible(), false);
    });

    test("the prompt holds no plot data, and the saved workflow one short line of it", async () => {
      const { output, workflow } = await page.evaluate(() => window.app.graphToPrompt());
      assert.ok(!("omnicache_plot" in output[1].inputs), "the prompt names the plot");
      assert.equal(output[1].inputs.saved_profile, PROFILE);
      const [{ widgets_values: saved, properties }] = workflow.nodes;
      assert.equal(saved.length, Object.keys(output[1].inputs).length);
      assert.ok(!/sigmas|curvature_sd|timesteps/.test(JSON.stringify(output)), "the prompt holds plot data");
      const kept = Object.values(properties).filter((value) => String(value).includes("timesteps"));
      assert.equal(kept.length, 1);
      assert.ok(kept[0].length < 8000, `the workflow keeps ${kept[0].length} characters of 20 steps`);
    });

    test("dragging in the plot leaves the node where it is", async () => {
      const before = await nodeState(page);
      await dragInPlot(page, "left");
      assert.deepEqual(await nodeState(page), before);
    });

    test("the middle button over the plot pans the canvas", async () => {
      const before = await nodeState(page);
      await dragInPlot(page, "middle");
      const after = await nodeState(page);
      assert.deepEqual(after.position, before.position);
      assert.deepEqual(
        after.offset.map(Math.round),
        [before.offset[0] + 60, before.offset[1] + 40].map(Math.round),
      );
      await zoomTo(page, 1);
    });

    test("the wheel over the plot zooms the canvas", async () => {
      const before = await nodeState(page);
      await pointAtPlot(page);
      await page.mouse.wheel(0, -120);
      await settle(page);
      assert.ok((await nodeState(page)).scale > before.scale);
      await zoomTo(page, 1);
    });

    test("the plot grows and shrinks with its node", async () => {
      const before = await page.locator(".omnicache-plot").boundingBox();
      await dragCorner(page, 80, 150);
      const larger = await page.locator(".omnicache-plot").boundingBox();
      assertNear(larger.width, before.width + 80);
      assertNear(larger.height, before.height + 150);
      const svg = await page.locator(".omnicache-plot .picture .omnicache-svg").boundingBox();
      const picture = await page.locator(".omnicache-plot .picture").boundingBox();
      assertNear(svg.width, picture.width);
      assertNear(svg.height, picture.height);
      await dragCorner(page, -80, -150);
      const again = await page.locator(".omnicache-plot").boundingBox();
      assertNear(again.width, before.width);
      assertNear(again.height, before.height);
    });

    test("undoing an edit keeps the plot", async () => {
      const caption = await page.locator(".omnicache-plot .caption").textContent();
      await undoAnEdit(page);
      assert.equal(await page.locator(".omnicache-plot .caption").textContent(), caption);
    });

    test("undoing keeps also a plot that came before the answer to its prompt", async () => {
      await page.route("**/prompt", async (route) => {
        if (route.request().method() !== "POST") return route.continue();
        const response = await route.fetch();
        await new Promise((resolve) => setTimeout(resolve, 500));
        return route.fulfill({ response });
      });
      await setWidget(page, "budget", 0.4);
      await runWorkflow(page);
      await page.waitForTimeout(600);
      await page.unroute("**/prompt");
      await undoAnEdit(page);
      assert.match(await page.locator(".omnicache-plot .caption").textContent(), /^12 of 20 computed/);
    });

    test("coming back to a workflow's tab restores its plot", async () => {
      const before = await page.locator(".omnicache-plot .caption").textContent();
      assert.match(before, /computed/);
      const command = (id) => page.evaluate((name) => window.app.extensionManager.command.execute(name), id);
      await command("Comfy.NewBlankWorkflow");
      await settle(page);
      assert.equal(await page.locator(".omnicache-plot").count(), 0);
      await command("Workspace.PreviousOpenedWorkflow");
      await page.locator(".omnicache-plot").waitFor();
      await settle(page);
      assert.equal(await page.locator(".omnicache-plot .caption").textContent(), before);
      assert.equal(await page.locator(".omnicache-plot .curve.gamma path.line").count(), 1);
    });

    test("changing the renderer keeps the plot", async () => {
      const before = await page.locator(".omnicache-plot .caption").textContent();
      const useVueNodes = (value) =>
        page.evaluate((on) => window.app.extensionManager.setting.set("Comfy.VueNodes.Enabled", on), value);
      for (const value of [!vueNodes, vueNodes]) {
        await useVueNodes(value);
        await settle(page);
        assert.equal(await page.locator(".lg-node .omnicache-plot").count(), value ? 1 : 0);
        assert.equal(await page.locator(".omnicache-plot:visible .caption").textContent(), before);
      }
    });

    test("nothing went wrong in the page", () => {
      assert.deepEqual(errors, []);
    });
  });
}

function setWidget(page, name, value) {
  return page.evaluate(
    ([widget, to]) => {
      window.app.graph.getNodeById(1).widgets.find((candidate) => candidate.name === widget).value = to;
    },
    [name, value],
  );
}

async function undoAnEdit(page) {
  const title = await page.evaluate(async () => {
    const tracker = window.app.extensionManager.workflow.activeWorkflow.changeTracker;
    tracker.checkState();
    window.app.graph.getNodeById(1).title = "renamed";
    tracker.checkState();
    await tracker.undo();
    return window.app.graph.getNodeById(1).title;
  });
  assert.notEqual(title, "renamed");
  await settle(page);
}

async function pointAtPlot(page) {
  const box = await page.locator(".omnicache-plot .picture").boundingBox();
  const [x, y] = [box.x + box.width / 2, box.y + box.height / 2];
  await page.mouse.move(x, y);
  return [x, y];
}

async function dragInPlot(page, button) {
  const [x, y] = await pointAtPlot(page);
  await page.mouse.down({ button });
  await page.mouse.move(x + 30, y + 20, { steps: 4 });
  await page.mouse.move(x + 60, y + 40, { steps: 4 });
  await page.mouse.up({ button });
  await settle(page);
}

async function dragCorner(page, right, down) {
  const handle = page.locator(".lg-node [aria-label='Resize from bottom-right corner']");
  const box = (await handle.count()) && (await handle.boundingBox());
  const [x, y] = box
    ? [box.x + box.width / 2, box.y + box.height / 2]
    : await page.evaluate(() => {
        const { pos, size } = window.app.graph.getNodeById(1);
        return window.app.canvasPosToClientPos([pos[0] + size[0] - 3, pos[1] + size[1] - 3]);
      });
  await page.mouse.move(x, y);
  await page.mouse.down();
  await page.mouse.move(x + right, y + down, { steps: 5 });
  await page.mouse.up();
  await settle(page);
}

function assertNear(actual, expected, tolerance = 3) {
  assert.ok(Math.abs(actual - expected) <= tolerance, `${actual} is not within ${tolerance} of ${expected}`);
}
