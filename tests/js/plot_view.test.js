import { beforeEach, describe, expect, test } from "vitest";

import { PlotView } from "../../js/plot_view.js";
import { JUNK, profilePayload, replannablePayload, schedulePayload } from "./payloads.js";

const [WIDTH, HEIGHT] = [400, 180];

/** jsdom lays nothing out: the picture gets a size here; the observer of sizes, which it lacks, is idle. */
beforeEach(() => {
  globalThis.ResizeObserver = class {
    observe() {}
  };
  document.body.replaceChildren();
});

function createView({ zoom = 1, host = undefined } = {}) {
  const view = new PlotView("Connect something, then run", host);
  Object.defineProperties(view.picture, {
    clientWidth: { value: WIDTH },
    clientHeight: { value: HEIGHT },
    getBoundingClientRect: {
      value: () => ({ left: 100, width: WIDTH * zoom, top: 0, height: HEIGHT * zoom }),
    },
  });
  document.body.append(view.element);
  return view;
}

const point = (view, clientX) =>
  view.picture.dispatchEvent(new MouseEvent("pointermove", { clientX, bubbles: true }));
const press = (view, key) => {
  const event = new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true });
  view.picture.dispatchEvent(event);
  return event;
};
const shownStep = (view) =>
  view.tooltip.hidden ? null : view.tooltip.querySelector(".heading span").textContent;

describe("the empty state", () => {
  test("says what to do", () => {
    const view = createView();
    expect(view.element.textContent).toBe("Connect something, then run");
    expect(view.tooltip.hidden).toBe(true);
  });

  test("comes back when there is nothing to draw any more", () => {
    const view = createView();
    view.show(schedulePayload(20));
    expect(view.element.querySelector(".hint")).toBeNull();
    for (const nothing of [null, undefined, {}, "text", { timesteps: [1] }]) {
      view.show(nothing);
      expect(view.element.querySelector(".hint").textContent).toBe("Connect something, then run");
      expect(view.element.textContent).toBe("Connect something, then run");
    }
  });

  test("has no values to show", () => {
    const view = createView();
    point(view, 300);
    press(view, "ArrowRight");
    expect(shownStep(view)).toBeNull();
  });
});

describe("the filled plot", () => {
  test("has caption, title and note", () => {
    const view = createView();
    view.show(schedulePayload(20, { note: "interpolated from 50 steps" }));
    expect(view.caption.textContent).toBe("11 of 20 computed · predicted 1.9×");
    expect(view.title.textContent).toBe("sd3 · euler · 20 steps");
    expect(view.note.textContent).toBe("interpolated from 50 steps");
    expect(view.picture.querySelector("svg").getAttribute("width")).toBe(String(WIDTH));
  });

  test("replaces what it showed before", () => {
    const view = createView();
    view.show(schedulePayload(20, { note: "first" }));
    view.show(profilePayload(30));
    expect(view.picture.querySelectorAll("svg")).toHaveLength(1);
    expect(view.caption.textContent).toBe("30 steps measured");
    expect(view.note.textContent).toBe("");
  });

  test("takes texts as texts", () => {
    const view = createView();
    const attack = `<img src=x onerror="document.title = 'run'"><script>document.title = "run"</script>`;
    view.show(schedulePayload(20, { title: attack, note: attack, speedup: attack }));
    expect(view.title.textContent).toBe(attack);
    expect(view.note.textContent).toBe(attack);
    point(view, 300);
    expect(view.element.querySelector("img, script")).toBeNull();
    expect(document.title).not.toBe("run");
  });
});

describe("the pointer", () => {
  test.each([1, 1.6, 0.5])("shows the step under it at zoom %d", (zoom) => {
    const view = createView({ zoom });
    view.show(schedulePayload(20));
    const { cells } = view.drawing.layout;
    for (let step = 0; step < 20; step += 1) {
      const x = (cells[step] + cells[step + 1]) / 2;
      point(view, 100 + x * zoom);
      expect(shownStep(view)).toBe(`step ${step}`);
    }
  });

  test("shows the values of that step", () => {
    const view = createView();
    view.show(schedulePayload(20));
    point(view, 100 + view.drawing.layout.xs[4]);
    expect(view.tooltip.querySelector(".state").textContent).toBe("reused");
    const values = [...view.tooltip.querySelectorAll("dt")].map((name) => [
      name.textContent,
      name.nextElementSibling.textContent,
    ]);
    expect(values.map(([name]) => name)).toEqual([
      "timestep",
      "sigma",
      "curvature",
      "gamma",
      "error",
      "gain",
    ]);
    expect(values[0][1]).toBe("800");
    expect(values[4][1]).toBe("4 %");
  });

  test("keeps the values inside: right of the step in the left half, left of it in the right half", () => {
    const view = createView();
    view.show(schedulePayload(20));
    point(view, 100 + view.drawing.layout.xs[3]);
    expect(view.tooltip.style.right).toBe("auto");
    point(view, 100 + view.drawing.layout.xs[17]);
    expect(view.tooltip.style.left).toBe("auto");
  });

  test("takes the values away when it leaves, and when the data changes", () => {
    const view = createView();
    view.show(schedulePayload(20));
    point(view, 300);
    expect(shownStep(view)).not.toBeNull();
    view.picture.dispatchEvent(new MouseEvent("pointerleave"));
    expect(shownStep(view)).toBeNull();
    point(view, 300);
    view.show(schedulePayload(4));
    expect(shownStep(view)).toBeNull();
  });
});

describe("the keyboard", () => {
  test("walks through the steps and stops at the ends", () => {
    const view = createView();
    view.show(schedulePayload(4));
    const steps = [
      "ArrowRight",
      "ArrowRight",
      "ArrowLeft",
      "ArrowLeft",
      "End",
      "ArrowRight",
      "Home",
      "Escape",
    ];
    const shown = steps.map((key) => {
      press(view, key);
      return shownStep(view);
    });
    expect(shown).toEqual(["step 0", "step 1", "step 0", "step 0", "step 3", "step 3", "step 0", null]);
  });

  test("keeps its keys from the client, and leaves it all others", () => {
    const view = createView();
    view.show(schedulePayload(4));
    let reached = 0;
    document.body.addEventListener("keydown", () => (reached += 1), { once: true });
    expect(press(view, "ArrowRight").defaultPrevented).toBe(true);
    expect(reached).toBe(0);
    expect(press(view, "Delete").defaultPrevented).toBe(false);
    expect(reached).toBe(1);
  });
});

/** A plot whose node has the input overrides, and remembers its look. */
function createNode(given = {}) {
  const node = { text: "", inputs: {}, look: undefined, ...given };
  const host = {
    input: (name) => (name === "overrides" ? node.text : node.inputs[name]),
    setOverrides: (value) => (node.text = value),
    look: () => node.look,
    setLook: (value) => (node.look = value),
  };
  return { node, view: createView({ host }) };
}

const reusedSteps = (view) => view.data.reused.flatMap((value, step) => (value ? [step] : []));
const release = (view, clientX, from = clientX) => {
  view.element.dispatchEvent(new MouseEvent("pointerdown", { clientX: from, clientY: 50, bubbles: true }));
  view.element.dispatchEvent(new MouseEvent("pointerup", { clientX, clientY: 50, bubbles: true }));
};

describe("forcing steps", () => {
  test("a click forces a step to what it is not, the next one frees it", () => {
    const { node, view } = createNode();
    view.show(replannablePayload());
    expect(reusedSteps(view)).toEqual([2, 4, 6, 8]);
    release(view, 100 + view.drawing.layout.xs[4]);
    expect(node.text).toBe("4 full");
    // Step 5 with 6 behind it costs .025 + 4 * .016 in place of .016: less than 3 behind 2, 4 * .023.
    expect(reusedSteps(view)).toEqual([2, 5, 6, 8]);
    expect(view.picture.querySelectorAll(".pin")).toHaveLength(1);
    release(view, 100 + view.drawing.layout.xs[4]);
    expect(node.text).toBe("");
    expect(reusedSteps(view)).toEqual([2, 4, 6, 8]);
  });

  test("speed-up and error change at once", () => {
    const { view } = createNode();
    view.show(replannablePayload());
    const before = view.caption.textContent;
    release(view, 100 + view.drawing.layout.xs[5]);
    expect(view.caption.textContent).not.toBe(before);
    expect(view.caption.textContent).toMatch(/^6 of 10 computed · predicted 1\.6× · error [\d.]+ %$/);
  });

  test("a drag forces nothing, and neither does a click elsewhere", () => {
    const { node, view } = createNode();
    view.show(replannablePayload());
    release(view, 300, 250);
    view.element.dispatchEvent(new MouseEvent("pointerup", { clientX: 300, clientY: 999, bubbles: true }));
    expect(node.text).toBe("");
  });

  test("the keyboard forces the marked step", () => {
    const { node, view } = createNode();
    view.show(replannablePayload());
    for (const key of ["End", "ArrowLeft", "r", "ArrowLeft", "f"]) press(view, key);
    expect(node.text).toBe("7 full, 8 reuse");
    expect(shownStep(view)).toBe("step 7");
    expect(view.tooltip.querySelector(".state").textContent).toBe("computed, forced");
    press(view, "Delete");
    expect(node.text).toBe("8 reuse");
  });

  test("what no plan can meet is refused, with the reason", () => {
    const { node, view } = createNode();
    view.show(replannablePayload());
    for (const key of ["Home", "r"]) press(view, key);
    expect(node.text).toBe("");
    expect(view.note.textContent).toContain("step 0 cannot be reused");
  });

  test("what was typed is planned, or the plot says what is wrong with it", () => {
    const { node, view } = createNode();
    view.show(replannablePayload());
    node.text = "5 reuse";
    view.refresh();
    expect(view.data.reused[5]).toBe(true);
    node.text = "five";
    view.refresh();
    expect(view.caption.textContent).toBe("no plan with these inputs");
    expect(view.note.textContent).toContain("'five' is not understood");
    press(view, "Home");
    expect(press(view, "Delete").defaultPrevented).toBe(false);
  });

  test("other inputs are planned at once, around the forced steps", () => {
    const { node, view } = createNode({ text: "5 reuse" });
    view.show(replannablePayload());
    node.inputs = { budget: 0.2 };
    view.followInputs();
    expect(reusedSteps(view)).toEqual([2, 5]);
    expect(view.caption.textContent).toMatch(/^8 of 10 computed/);
    const { svg } = view.drawing;
    view.followInputs();
    expect(view.drawing.svg).toBe(svg); // drawn anew only if something has changed
  });

  test("is left alone where the input comes through a link", () => {
    const { node, view } = createNode({ text: undefined });
    view.show(replannablePayload());
    release(view, 100 + view.drawing.layout.xs[4]);
    expect(node.text).toBeUndefined();
    expect(reusedSteps(view)).toEqual([2, 4, 6, 8]);
  });
});

describe("a sampling run", () => {
  const frame = () => new Promise(requestAnimationFrame);
  const message = (kinds, steps = 10) => ({ steps, kinds, milliseconds: kinds.map((_, step) => step + 0.5) });

  test("turns its steps one by one, with their times", async () => {
    const { view } = createNode();
    view.show(replannablePayload());
    view.showLive(message(["full", "full", "corrected"]));
    await frame();
    expect(view.caption.textContent).toBe("step 3 of 10 · corrected · 2.5 ms");
    const cells = [...view.picture.querySelectorAll(".strip.run rect")];
    expect(cells.map((cell) => cell.getAttribute("class"))).toEqual(["computed", "computed", "reused"]);
    expect(cells[2].querySelector("title").textContent).toBe("step 2: corrected, 2.5 ms");
    expect(view.picture.querySelectorAll(".strip.run .dot")).toHaveLength(1);
    for (const key of ["Home", "ArrowRight", "ArrowRight"]) press(view, key);
    expect(view.tooltip.textContent).toContain("corrected, 2.5 ms");
    view.endLive();
    expect(view.caption.textContent).toMatch(/^6 of 10 computed/);
  });

  test("that was interrupted is over, also when the plot is made anew", async () => {
    const { view } = createNode();
    view.show(replannablePayload());
    view.showLive({ ...message(["full", "full"]), isOver: true });
    await frame();
    expect(view.caption.textContent).toMatch(/^6 of 10 computed/);
    expect(view.picture.querySelectorAll(".strip.run rect")).toHaveLength(2);
  });

  test("does not take away the marked step", async () => {
    const { view } = createNode();
    view.show(replannablePayload());
    press(view, "Home");
    view.showLive(message(["full"]));
    await frame();
    expect(shownStep(view)).toBe("step 0");
  });

  test("of another length has cells of its own, and the plot says so", async () => {
    const { view } = createNode();
    view.show(replannablePayload());
    view.showLive(message(Array(30).fill("reused"), 30));
    await frame();
    expect(view.picture.querySelectorAll(".strip.run rect")).toHaveLength(30);
    expect(view.note.textContent).toContain("The run has 30 steps, the plot 10");
  });

  test("that makes no sense is none", async () => {
    const { view } = createNode();
    view.show(replannablePayload());
    for (const junk of [
      ...JUNK,
      message([]),
      message(["full"], 0),
      message(["<b>"]),
      message(["full"], 1e9),
    ]) {
      view.showLive(junk);
      await frame();
      expect(view.picture.querySelector(".run")).toBeNull();
      expect(view.caption.textContent).toMatch(/^6 of 10 computed/);
    }
  });
});

describe("the tools", () => {
  const pressButton = (view, selector) => view.element.querySelector(selector).click();

  test("switch curves off and on, and the node remembers", () => {
    const { node, view } = createNode();
    view.show(replannablePayload());
    pressButton(view, ".toggle.gamma");
    pressButton(view, ".toggle.error");
    expect(node.look.curves).toEqual(["curvature", "error"]);
    expect(view.picture.querySelector(".curve.gamma")).toBeNull();
    expect(view.picture.querySelector(".curve.error path.line")).not.toBeNull();
    expect(view.element.querySelector(".toggle.gamma").getAttribute("aria-pressed")).toBe("false");
    const again = createView({ host: { ...view.host } });
    again.show(replannablePayload());
    expect(again.picture.querySelector(".curve.gamma")).toBeNull();
  });

  test("place the steps by number or by log-SNR", () => {
    const { node, view } = createNode();
    view.show(replannablePayload());
    const rows = () => [...view.picture.querySelectorAll(".labels .start")].map((row) => row.textContent);
    expect(rows()).toEqual(["timestep", "sigma"]);
    pressButton(view, ".axis");
    expect(rows()).toEqual(["step", "timestep"]);
    const { xs } = view.drawing.layout;
    expect(xs[2] - xs[1]).toBeCloseTo(xs[9] - xs[8]);
    pressButton(view, ".axis");
    expect(rows()).toEqual(["log-SNR", "sigma"]);
    pressButton(view, ".axis");
    expect(node.look.axis).toBe("timestep");
  });

  test("junk in the node's properties is the first look", () => {
    for (const junk of JUNK) {
      const { node, view } = createNode();
      node.look = typeof junk === "object" ? { curves: junk, axis: junk } : junk;
      view.show(replannablePayload());
      expect(view.look.axis).toBe("timestep");
    }
  });

  test("show the trajectory in space, which turns by keys and by dragging", () => {
    const { view } = createNode();
    view.show(replannablePayload());
    pressButton(view, ".space");
    const line = () => view.picture.querySelector(".space .curve path.line").getAttribute("d");
    const first = line();
    expect(first).not.toMatch(/NaN/);
    expect(press(view, "ArrowRight").defaultPrevented).toBe(true);
    const turned = line();
    expect(turned).not.toBe(first);
    view.element.dispatchEvent(new MouseEvent("pointerdown", { clientX: 200, clientY: 50 }));
    view.element.dispatchEvent(new MouseEvent("pointermove", { clientX: 240, clientY: 60, buttons: 1 }));
    expect(line()).not.toBe(turned);
    pressButton(view, ".space");
    expect(view.picture.querySelector(".space")).toBeNull();
  });

  test("save a picture that needs no style sheet", async () => {
    const { view } = createNode();
    view.show(replannablePayload());
    let saved;
    URL.createObjectURL = (blob) => ((saved = blob), "blob:x");
    URL.revokeObjectURL = () => {};
    HTMLAnchorElement.prototype.click = () => {};
    pressButton(view, ".save");
    const text = await saved.text();
    const { documentElement } = new DOMParser().parseFromString(text, "image/svg+xml");
    expect(documentElement.localName).toBe("svg");
    expect(documentElement.querySelector("title").textContent).toContain("6 of 10 computed");
    expect(text).not.toMatch(/class=|var\(/);
    expect(text).toContain(">gamma<");
    expect(view.picture.querySelectorAll("svg")).toHaveLength(1);
  });
});
