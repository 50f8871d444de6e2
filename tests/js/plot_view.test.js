import { beforeEach, describe, expect, test } from "vitest";

import { PlotView } from "../../js/plot_view.js";
import { profilePayload, schedulePayload } from "./payloads.js";

const [WIDTH, HEIGHT] = [400, 180];

/** jsdom lays nothing out: the picture gets a size here; the observer of sizes, which it lacks, is idle. */
beforeEach(() => {
  globalThis.ResizeObserver = class {
    observe() {}
  };
  document.body.replaceChildren();
});

function createView({ zoom = 1 } = {}) {
  const view = new PlotView("Connect something, then run");
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
    view.show(schedulePayload(20, { title: attack, note: attack, kind: attack, speedup: attack }));
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
    expect(values.map(([name]) => name)).toEqual(["timestep", "sigma", "curvature", "gamma", "noise"]);
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
