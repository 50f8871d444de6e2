/** Steps that turn as they are sampled, and steps that are forced by a click. Started by run.py. */

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { after, before, describe, test } from "node:test";

import {
  PROFILE,
  RENDERERS,
  SERVER,
  openClient,
  openExample,
  runWorkflow,
  setWidgets,
  settle,
  startBrowser,
  watchErrors,
} from "./client.js";

const STEPS = 20; // of the profile
let browser;

before(async () => {
  browser = await startBrowser();
});

after(() => browser?.close());

for (const { renderer, vueNodes } of RENDERERS) {
  describe(`${renderer} renderer`, () => {
    let page;
    let seed = vueNodes ? 1000 : 0;
    let errors;

    /** Samples, and gives what the client was told of it: steps, and what the plot showed meanwhile. */
    async function sample({ steps = STEPS } = {}) {
      seed += 1; // else the host takes the picture from its cache
      await setWidgets(page, "KSampler", { seed, steps });
      await page.evaluate(() => {
        const { api } = window.comfyAPI.api;
        window.told = { steps: [], runs: [], captions: new Set() };
        window.listeners ??= ["omnicache.step", "omnicache.run"].map((name) =>
          api.addEventListener(name, ({ detail }) =>
            window.told[name.endsWith("step") ? "steps" : "runs"].push(detail),
          ),
        );
        const caption = document.querySelector(".omnicache-plot .caption");
        window.observer?.disconnect();
        window.observer = new MutationObserver(() => window.told.captions.add(caption.textContent));
        window.observer.observe(caption, { childList: true });
      });
      await runWorkflow(page);
      await settle(page);
      return page.evaluate(() => ({ ...window.told, captions: [...window.told.captions] }));
    }

    before(async () => {
      page = await openClient(browser, { vueNodes });
      errors = watchErrors(page);
      await openExample(page, "image_generate", {
        OmniCacheDemoLatent: { batch_size: 1 },
        CurvatureScheduler: { saved_profile: PROFILE },
      });
      await centre(page);
    });

    after(() => page?.close());

    test("each step of a run turns into what it was, with its time", async () => {
      const { steps, runs, captions } = await sample();
      assert.equal(steps.length, STEPS, "one message a step");
      const kinds = steps.at(-1).kinds;
      assert.deepEqual(new Set(kinds), new Set(["full", "corrected"]));
      assert.deepEqual(
        kinds.map((kind) => (kind === "full" ? "full" : "reuse")),
        runs[0].step_kinds,
      );
      assert.ok(
        captions.some((text) => /^step \d+ of 20 · (full|corrected)( · repaid [\d.e-]+ %)? · [\d.]+ ms$/.test(text)),
        captions.join(),
      );
      assert.match(await caption(page), /^\d+ of 20 computed · predicted [\d.]+× · error [\d.]+ %$/);
      const row = page.locator(".omnicache-plot .strip.run");
      assert.deepEqual(
        await row.locator("rect").evaluateAll((cells) => cells.map((cell) => cell.classList[0])),
        kinds.map((kind) => (kind === "full" ? "computed" : "reused")),
      );
      assert.equal(
        await row.locator("circle.dot").count(),
        kinds.filter((kind) => kind === "corrected").length + runs[0].repaid.filter(Boolean).length,
      );
      assert.match(await row.locator("rect title").first().textContent(), /^step 0: full, [\d.]+ ms$/);
    });

    test("a click forces a step, the plan is solved around it, and the sampler follows", async () => {
      const before = await plan(page);
      const reused = before.indexOf(true);
      await clickStep(page, reused);
      assert.equal(await overrides(page), `${reused} full`);
      const after = await plan(page);
      assert.equal(after[reused], false);
      assert.equal(after.filter(Boolean).length, before.filter(Boolean).length, "the budget is kept");
      assert.equal(await page.locator(".omnicache-plot .pin").count(), 1);

      const { output } = await page.evaluate(() => window.app.graphToPrompt());
      const inputs = Object.values(output).find((node) => node.class_type === "CurvatureScheduler").inputs;
      assert.equal(inputs.overrides, `${reused} full`);
      const { runs } = await sample();
      assert.deepEqual(runs[0].step_kinds, kindsOf(after));
      assert.deepEqual(await plan(page), after, "the node makes the plan that the plot foretold");
    });

    test("undo takes a click back, and redo makes it again", async () => {
      const [text, before] = [await overrides(page), await plan(page)];
      await clickStep(page, before.lastIndexOf(true));
      const [clicked, forced] = [await overrides(page), await plan(page)];
      assert.match(clicked, /^\d+ full, \d+ full$/);
      await page.locator(".omnicache-plot .picture").focus();
      await page.keyboard.press("Control+z");
      await settle(page);
      assert.equal(await overrides(page), text);
      assert.deepEqual(await plan(page), before);
      const tracker = (name) =>
        page.evaluate(
          (method) => window.app.extensionManager.workflow.activeWorkflow.changeTracker[method](),
          name,
        );
      await tracker("redo");
      await settle(page);
      assert.equal(await overrides(page), clicked);
      assert.deepEqual(await plan(page), forced);
      assert.equal(
        await page.locator(".omnicache-plot .strip.run").count(),
        1,
        "the last run is still shown",
      );
      await tracker("undo");
      await settle(page);
    });

    test("a second click frees the step", async () => {
      const forced = Number.parseInt(await overrides(page), 10);
      await clickStep(page, forced);
      assert.equal(await overrides(page), "");
      assert.equal((await plan(page))[forced], true);
    });

    test("the keyboard forces steps and frees them, and nothing else happens", async () => {
      const count = await page.evaluate(() => window.app.graph.nodes.length);
      await page.locator(".omnicache-plot .picture").focus();
      for (const key of ["Home", "ArrowRight", "ArrowRight", "ArrowRight", "r", "ArrowRight", "f"]) {
        await page.keyboard.press(key);
      }
      assert.equal(await overrides(page), "3 reuse, 4 full");
      for (const key of ["Delete", "ArrowLeft", "Backspace"]) await page.keyboard.press(key);
      assert.equal(await overrides(page), "");
      await page.keyboard.press("Enter");
      assert.match(await overrides(page), /^3 (full|reuse)$/);
      await page.keyboard.press("Delete");
      assert.equal(await page.evaluate(() => window.app.graph.nodes.length), count);
    });

    for (const scale of [0.6, 1.6]) {
      test(`a click forces the step under it at zoom ${scale}`, async () => {
        await centre(page, scale);
        const step = (await plan(page)).lastIndexOf(true);
        await clickStep(page, step);
        assert.equal(await overrides(page), `${step} full`);
        await clickStep(page, step);
        assert.equal(await overrides(page), "");
        await centre(page);
      });
    }

    test("what no plan can meet is not forced, and the plot says why", async () => {
      await page.locator(".omnicache-plot .picture").focus();
      for (const key of ["Home", "r"]) await page.keyboard.press(key);
      assert.equal(await overrides(page), "");
      assert.match(await page.locator(".omnicache-plot .note").textContent(), /step 0 cannot be reused/);
    });

    test("what is typed is planned at once", async () => {
      const before = await plan(page);
      await typeOverrides(page, "5-6 reuse");
      assert.deepEqual((await plan(page)).slice(5, 7), [true, true]);
      assert.equal(await page.locator(".omnicache-plot .pin").count(), 2);
      await typeOverrides(page, "");
      assert.deepEqual(await plan(page), before);
    });

    test("a run of another length has its own cells, and the plot says so", async () => {
      const { steps } = await sample({ steps: 12 });
      assert.equal(steps.length, 12);
      assert.equal(await page.locator(".omnicache-plot .strip.run rect").count(), 12);
      assert.match(
        await page.locator(".omnicache-plot .note").textContent(),
        /run has 12 steps, the plot 20/,
      );
    });

    test("the picture is saved as an SVG file that needs no style sheet", async () => {
      const [download] = await Promise.all([
        page.waitForEvent("download"),
        page.locator(".omnicache-plot .save").click(),
      ]);
      assert.match(download.suggestedFilename(), /^[\w.-]+\.svg$/);
      const text = await readFile(await download.path(), "utf8");
      assert.match(text, /^<svg [^]*stroke="rgb\(86, 180, 233\)"/); // curvature, on the dark theme
      assert.doesNotMatch(text, /class=|var\(|color\(/);
    });

    test("switching a curve on is undone as any change", async () => {
      const curve = page.locator(".omnicache-plot .picture .curve.error");
      await page.locator(".omnicache-plot .toggle.error").click();
      assert.equal(await curve.count(), 1);
      await settle(page);
      await page.evaluate(() => window.app.extensionManager.workflow.activeWorkflow.changeTracker.undo());
      await settle(page);
      assert.equal(await curve.count(), 0);
    });

    test("a copy of the node has the overrides and the plot, and the saved workflow too", async () => {
      await clickStep(page, 9);
      const text = await overrides(page);
      assert.match(text, /^9 /);
      const copied = await page.evaluate(() => {
        const { app } = window;
        app.canvas.selectItems([app.graph.nodes.find((node) => node.type === "CurvatureScheduler")]);
        app.canvas.copyToClipboard();
        app.canvas.pasteFromClipboard();
        const [first, second] = app.graph.nodes.filter((node) => node.type === "CurvatureScheduler");
        const shown = [first, second].map(({ widgets }) => [
          widgets.find(({ name }) => name === "overrides").value,
          widgets.find(({ element }) => element).element.querySelector(".caption").textContent,
        ]);
        app.graph.remove(second);
        return shown;
      });
      assert.deepEqual(copied, Array(2).fill([text, await caption(page)]));
      await page.evaluate(async () => window.app.loadGraphData(window.app.graph.serialize()));
      await settle(page);
      assert.equal(await overrides(page), text);
    });

    test("in a subgraph the plot follows the run, and a click in it reaches the sampler", async () => {
      await page.evaluate(() => {
        const { app } = window;
        const scheduler = app.graph.nodes.find((node) => node.type === "CurvatureScheduler");
        const { subgraph, node } = app.graph.convertToSubgraph(new Set([scheduler]));
        app.canvas.openSubgraph ? app.canvas.openSubgraph(subgraph, node) : app.canvas.setGraph(subgraph);
      });
      await settle(page);
      await centre(page);
      const { steps } = await sample();
      assert.match(String(steps[0].node), /:/);
      const row = page.locator(".omnicache-plot .strip.run rect");
      assert.equal(await row.count(), STEPS);
      const step = (await plan(page)).indexOf(true);
      await clickStep(page, step);
      const foretold = await plan(page);
      assert.equal(foretold[step], false);
      const { runs } = await sample();
      assert.deepEqual(runs[0].step_kinds, kindsOf(foretold));
      await page.evaluate(() => window.app.canvas.setGraph(window.app.rootGraph ?? window.app.graph));
    });

    test("loading the page anew keeps the plot and the overrides, and steps can be forced in it", async () => {
      await openExample(page, "image_generate", { CurvatureScheduler: { saved_profile: PROFILE } });
      await centre(page);
      await persist(page, true);
      await sample();
      await clickStep(page, 9);
      const [text, shown, steps] = [await overrides(page), await caption(page), await plan(page)];
      assert.match(text, /^9 /);
      await page.waitForTimeout(1500);
      await reload(page);
      assert.equal(await overrides(page), text);
      assert.equal(await caption(page), shown);
      assert.deepEqual(await plan(page), steps);
      await centre(page);
      await clickStep(page, steps.indexOf(true, 10));
      assert.notEqual(await caption(page), shown);
      const after = await plan(page);
      await page.evaluate(() => window.app.extensionManager.workflow.activeWorkflow.changeTracker.undo());
      await settle(page);
      assert.deepEqual(await plan(page), steps, "undo reaches the plot that is seen");
      await clickStep(page, steps.indexOf(true, 10));
      assert.deepEqual(await plan(page), after);
      const { runs } = await sample();
      assert.deepEqual(runs[0].step_kinds, kindsOf(after));
      assert.equal(await page.locator(".omnicache-plot .strip.run rect").count(), STEPS);
      await persist(page, false);
    });

    test("a file has its plot, without the server that it was made on", async () => {
      const [shown, steps] = [await caption(page), await plan(page)];
      const text = await page.evaluate(() => JSON.stringify(window.app.graph.serialize()));
      assert.ok(text.length < 20000, `the workflow has ${text.length} characters`);
      await page.evaluate(async () => {
        await window.app.loadGraphData({ nodes: [], links: [], version: 0.4 });
        window.app.nodeOutputs = {};
      });
      await page.evaluate((file) => window.app.loadGraphData(JSON.parse(file)), text);
      await settle(page);
      assert.equal(await caption(page), shown);
      assert.deepEqual(await plan(page), steps);
      await centre(page);
      await clickStep(page, steps.indexOf(true));
      assert.notDeepEqual(await plan(page), steps);
    });

    test("a plot is no edit: undo does not stop at it", async () => {
      await openExample(page, "image_generate", { CurvatureScheduler: { saved_profile: PROFILE } });
      const queue = () =>
        page.evaluate(() => {
          const { changeTracker } = window.app.extensionManager.workflow.activeWorkflow;
          (changeTracker.captureCanvasState ?? changeTracker.checkState).call(changeTracker);
          return changeTracker.undoQueue.length;
        });
      await sample();
      const before = await queue();
      await setWidgets(page, "CurvatureScheduler", { budget: 0.3 });
      assert.equal(await queue(), before + 1);
      await sample();
      const withSeed = await queue();
      await page.waitForTimeout(100);
      assert.equal(await queue(), withSeed);
      assert.match(await caption(page), /^14 of 20 computed/);
      await page.evaluate(() => window.app.extensionManager.workflow.activeWorkflow.changeTracker.undo());
      await settle(page);
      assert.equal(await page.locator(".omnicache-plot .strip:not(.run) rect").count(), STEPS);
    });

    test("inputs are planned at once, as they are typed", async () => {
      await openExample(page, "image_generate", { CurvatureScheduler: { saved_profile: PROFILE } });
      await sample();
      await centre(page);
      await setWidgets(page, "CurvatureScheduler", { budget_kind: "full steps" });
      await typeInto(page, "budget", "16");
      assert.match(await caption(page), /^16 of 20 computed/);
      await typeInto(page, "max_consecutive", "1");
      await typeInto(page, "budget", "2");
      assert.match(await page.locator(".omnicache-plot .note").textContent(), /^budget: 18 of 20 steps cannot/);
      await typeInto(page, "budget", "13");
      const steps = await plan(page);
      assert.equal(steps.filter(Boolean).length, 7);
      assert.ok(steps.every((reused, step) => !(reused && steps[step + 1])));
      await setWidgets(page, "CurvatureScheduler", { cost: "even" });
      await page.evaluate(() => window.comfyAPI.api.api.dispatchCustomEvent("graphChanged"));
      await settle(page);
      const even = await plan(page);
      assert.notDeepEqual(even, steps);
      const { runs } = await sample();
      assert.deepEqual(runs[0].step_kinds, kindsOf(even), "the sampler follows what was foretold");
    });

    test("inputs that are promoted to the subgraph's node are read and written there", async () => {
      await openExample(page, "image_generate", { CurvatureScheduler: { saved_profile: PROFILE } });
      await page.evaluate((names) => {
        const { app } = window;
        const scheduler = app.graph.nodes.find((each) => each.type === "CurvatureScheduler");
        const { subgraph, node } = app.graph.convertToSubgraph(new Set([scheduler]));
        const inner = subgraph.nodes[0];
        for (const name of names) {
          const slot = inner.inputs.find((input) => input.name === name);
          subgraph.inputNode.connectByType(-1, inner, slot.type, { inputSlot: slot });
        }
        node.title = "promoted";
        app.canvas.openSubgraph ? app.canvas.openSubgraph(subgraph, node) : app.canvas.setGraph(subgraph);
      }, ["overrides", "budget"]);
      await settle(page);
      await centre(page);
      await sample();
      const before = await plan(page);
      const step = before.indexOf(true);
      await clickStep(page, step);
      const promoted = (name) =>
        page.evaluate((wanted) => {
          const root = window.app.rootGraph ?? window.app.graph;
          const node = root.nodes.find((each) => each.title === "promoted");
          return node.widgets.find((widget) => widget.name === wanted).value;
        }, name);
      assert.equal(await promoted("overrides"), `${step} full`);
      const foretold = await plan(page);
      assert.equal(foretold[step], false);
      const { runs } = await sample();
      assert.deepEqual(runs[0].step_kinds, kindsOf(foretold));
      await page.evaluate(() => {
        const root = window.app.rootGraph ?? window.app.graph;
        const node = root.nodes.find((each) => each.title === "promoted");
        node.widgets.find((widget) => widget.name === "budget").value = 0.2;
        const { changeTracker } = window.app.extensionManager.workflow.activeWorkflow;
        (changeTracker.captureCanvasState ?? changeTracker.checkState).call(changeTracker);
      });
      await settle(page);
      assert.match(await caption(page), /^16 of 20 computed/);
      const less = await plan(page);
      const { runs: again } = await sample();
      assert.deepEqual(again[0].step_kinds, kindsOf(less));
      await page.evaluate(() => window.app.canvas.setGraph(window.app.rootGraph ?? window.app.graph));
    });

    test("of two workflows that are queued one after the other, each gets its own plot and steps", async () => {
      await openExample(page, "image_generate", { CurvatureScheduler: { saved_profile: PROFILE } });
      await setWidgets(page, "KSampler", { seed: (seed += 1), steps: 30 });
      await page.evaluate(() => window.app.queuePrompt(0));
      await openExample(page, "image_generate", {
        CurvatureScheduler: { saved_profile: PROFILE, budget: 0.2 },
        KSampler: { seed: (seed += 1), steps: 12 },
      });
      const cells = page.locator(".omnicache-plot .strip.run rect");
      const first = await cells.count();
      await page.evaluate(() => window.app.queuePrompt(0));
      await idle(page);
      assert.equal(first, 0, "steps of the workflow behind are not shown");
      assert.match(await caption(page), /^16 of 20 computed/);
      assert.equal(await cells.count(), 12);
      const command = (id) => page.evaluate((name) => window.app.extensionManager.command.execute(name), id);
      await command("Workspace.PreviousOpenedWorkflow");
      await page.locator(".omnicache-plot .picture svg").waitFor();
      await settle(page);
      assert.match(await caption(page), /^10 of 20 computed/);
      assert.equal(await cells.count(), 30);
      await command("Workspace.NextOpenedWorkflow");
      await settle(page);
      assert.match(await caption(page), /^16 of 20 computed/);
      assert.equal(await cells.count(), 12);
    });

    test("another browser tab hears nothing of a run", async () => {
      const other = await openClient(browser, { vueNodes });
      await openExample(other, "image_generate", { CurvatureScheduler: { saved_profile: PROFILE } });
      await other.evaluate(() => {
        window.told = 0;
        for (const name of ["omnicache.step", "omnicache.run"])
          window.comfyAPI.api.api.addEventListener(name, () => (window.told += 1));
      });
      const { steps } = await sample();
      assert.ok(steps.length > 0);
      assert.equal(await other.evaluate(() => window.told), 0);
      assert.equal(await other.locator(".omnicache-plot .picture .omnicache-svg:not(.sketch)").count(), 0);
      await other.close();
    });

    test("nothing went wrong in the page", () => {
      assert.deepEqual(errors, []);
    });
  });
}

const caption = (page) => page.locator(".omnicache-plot .caption").textContent();

/** For each step whether the plot says that it is reused. */
function plan(page) {
  return page
    .locator(".omnicache-plot .strip:not(.run) rect")
    .evaluateAll((cells) => cells.map((cell) => cell.classList.contains("reused")));
}

/** What the sampler does at the steps of a plan. */
const kindsOf = (steps) => steps.map((reused) => (reused ? "reuse" : "full"));

/** Whether the client saves its workflow for the next load of the page. */
function persist(page, isOn) {
  return page.evaluate(
    (value) => window.app.extensionManager.setting.set("Comfy.Workflow.Persist", value),
    isOn,
  );
}

/** Waits until the server has nothing more to do. */
async function idle(page) {
  for (;;) {
    const { queue_running: running, queue_pending: pending } = await (
      await page.request.get(`${SERVER}/queue`)
    ).json();
    if (!running.length && !pending.length) break;
    await page.waitForTimeout(100);
  }
  await settle(page);
}

async function reload(page) {
  await page.reload();
  await page.waitForFunction(() => window.app?.vueAppReady && window.app.canvas);
  await page.locator(".omnicache-plot .picture svg").first().waitFor();
  await settle(page);
}

/** Types a number into an input of the scheduler as a user does. */
async function typeInto(page, name, text) {
  const node = page.locator(".lg-node", { has: page.locator(".omnicache-plot") });
  const field = node.locator(`input[aria-label="${name}"], [aria-label="${name}"] input`);
  if (await field.count()) {
    await field.focus();
    await field.selectText();
    await page.keyboard.type(text);
    await page.keyboard.press("Enter");
  } else {
    const [x, y] = await page.evaluate((wanted) => {
      const { app } = window;
      const node = app.canvas.graph.nodes.find((each) => each.type === "CurvatureScheduler");
      const widget = node.widgets.find((each) => each.name === wanted);
      const middle = [node.pos[0] + node.size[0] / 2, node.pos[1] + widget.y + 10];
      return app.canvasPosToClientPos(middle);
    }, name);
    await page.mouse.click(x, y);
    const prompt = page.locator(".graphdialog input");
    await prompt.fill(text);
    await page.keyboard.press("Enter");
  }
  await settle(page);
}

/** The input's value of the scheduler, wherever it is. */
function overrides(page) {
  return page.evaluate(() => {
    const graphs = [window.app.graph, ...(window.app.graph.subgraphs?.values() ?? [])];
    const nodes = graphs.flatMap((graph) => graph.nodes);
    const scheduler = nodes.find((node) => node.type === "CurvatureScheduler");
    return scheduler.widgets.find(({ name }) => name === "overrides").value;
  });
}

/** As the client's own text field does. */
function typeOverrides(page, text) {
  return page.evaluate((value) => {
    const scheduler = window.app.graph.nodes.find((node) => node.type === "CurvatureScheduler");
    const widget = scheduler.widgets.find(({ name }) => name === "overrides");
    widget.value = value;
    widget.callback?.(value);
  }, text);
}

async function clickStep(page, step) {
  const cell = await page.locator(".omnicache-plot .strip:not(.run) rect").nth(step).boundingBox();
  const picture = await page.locator(".omnicache-plot .picture").boundingBox();
  await page.mouse.click(cell.x + cell.width / 2, picture.y + picture.height / 2);
  await settle(page);
}

/** Shows the scheduler in the middle of the canvas; at large scales the part of it where the plot is. */
async function centre(page, scale = 1) {
  await page.evaluate((zoom) => {
    const { canvas } = window.app;
    const node = canvas.graph.nodes.find((candidate) => candidate.type === "CurvatureScheduler");
    const above = zoom > 1 ? 200 : -120;
    canvas.ds.scale = zoom;
    canvas.ds.offset = [300 / zoom - node.pos[0], -above / zoom - node.pos[1]];
    canvas.setDirty(true, true);
  }, scale);
  await settle(page);
}
