import { describe, expect, test } from "vitest";

import { readPayload, withSettings } from "../../js/plot_data.js";
import { drawPlot, drawSpace } from "../../js/plot_svg.js";
import { JUNK, profilePayload, replannablePayload, schedulePayload } from "./payloads.js";

const draw = (payload, width = 400, height = 180, options = {}) =>
  drawPlot(readPayload(payload), width, height, options);

const all = (svg, selector) => [...svg.querySelectorAll(selector)];
const numbersOf = (element) =>
  ["x", "y", "width", "height"].map((name) => Number(element.getAttribute(name)));

/** Every number in every attribute that places something. */
function coordinates(svg) {
  const names = ["x", "y", "x1", "y1", "x2", "y2", "cx", "cy", "width", "height", "d"];
  return all(svg, "*").flatMap((element) =>
    names.flatMap((name) =>
      (element.getAttribute(name) ?? "")
        .split(/[MLZh\s]+/)
        .filter(Boolean)
        .map(Number),
    ),
  );
}

describe("drawPlot", () => {
  test("draws both curves, each with its axis", () => {
    const { svg, layout } = draw(schedulePayload(20));
    expect(all(svg, ".curve.curvature path.line")).toHaveLength(1);
    expect(all(svg, ".curve.gamma path.line")).toHaveLength(1);
    // the curvature reaches 3.0 degrees, with head room 4.2; gamma reaches almost 1.2
    const ticks = (curve) => all(svg, `.grid .${curve}`).map((text) => text.textContent);
    expect(ticks("curvature")).toEqual(["0.0°", "1.5°", "3.0°", "4.5°", "6.0°"]);
    expect(ticks("gamma")).toEqual(["0.0", "0.3", "0.6", "0.9", "1.2"]);
    expect(all(svg, ".grid line")).toHaveLength(5);
    const { frame } = layout;
    for (const curve of layout.curves) {
      for (const y of curve.ys.filter((value) => value !== null)) {
        expect(y).toBeGreaterThanOrEqual(frame.top);
        expect(y).toBeLessThanOrEqual(frame.bottom);
      }
    }
  });

  test("puts a band behind each run of reused steps, exactly as wide as their cells", () => {
    const reused = [false, false, true, true, false, true, false, false];
    const { svg, layout } = draw(schedulePayload(8, { reused }));
    const bands = all(svg, ":scope > .bands rect").map(numbersOf);
    const { cells, frame } = layout;
    expect(bands).toHaveLength(2);
    [
      [2, 4],
      [5, 6],
    ].forEach(([start, end], index) => {
      expect(bands[index][0]).toBeCloseTo(cells[start], 1);
      expect(bands[index][2]).toBeCloseTo(cells[end] - cells[start], 1);
      expect(bands[index].slice(1, 2)).toEqual([frame.top]);
      expect(bands[index][3]).toBeCloseTo(frame.bottom - frame.top, 1);
    });
  });

  test("tells full from reused without colour: filled and hollow cells, one a step", () => {
    const reused = [false, false, true, true, false, true, false, false];
    const { svg } = draw(schedulePayload(8, { reused }));
    const kinds = all(svg, ".strip rect").map((cell) => cell.getAttribute("class") === "reused");
    expect(kinds).toEqual(reused);
  });

  test("runs cells together that would be too narrow", () => {
    const { svg } = draw(schedulePayload(1000));
    // steps 0-1 full, then every second reused up to 998, and 999 full: 500 runs of full steps on one outline
    expect(all(svg, ".strip .reused")).toHaveLength(1);
    expect(all(svg, ".strip .computed")).toHaveLength(500);
    expect(all(svg, ".marker")).toHaveLength(0);
  });

  test("has neither bands nor strip for a profile", () => {
    const { svg } = draw(profilePayload(20));
    expect(all(svg, ".bands, .strip")).toHaveLength(0);
    expect(svg.textContent).not.toContain("reused");
  });

  test("labels steps with timestep and sigma, the start of sampling at the left", () => {
    const { svg } = draw(profilePayload(20));
    const labels = all(svg, ".labels .middle");
    const timesteps = labels.slice(0, labels.length / 2).map((text) => Number(text.textContent));
    const sigmas = labels.slice(labels.length / 2).map((text) => Number(text.textContent));
    expect(timesteps[0]).toBe(1000);
    expect(timesteps.at(-1)).toBe(50);
    expect(timesteps).toEqual([...timesteps].sort((a, b) => b - a));
    sigmas.forEach((sigma, index) => expect(sigma).toBeCloseTo(timesteps[index] / 1000, 1));
    const xs = labels.map((text) => Number(text.getAttribute("x")));
    expect(xs[0]).toBeLessThan(xs[1]);
    expect(xs.slice(0, timesteps.length)).toEqual(xs.slice(timesteps.length));
  });

  test("names the rows in words where there is room", () => {
    const names = (width) =>
      all(draw(profilePayload(20), width).svg, ".labels .start").map((text) => text.textContent);
    expect(names(400)).toEqual(["timestep", "sigma"]);
    expect(names(220)).toEqual(["t", "σ"]);
  });

  test("marks computed and reused steps differently on the curves where there is room", () => {
    const { svg } = draw(schedulePayload(8));
    const reusedSteps = 3; // 2, 4 and 6
    expect(all(svg, ".curve.curvature > .marker.reused")).toHaveLength(reusedSteps);
    expect(all(svg, ".curve.curvature > .marker")).toHaveLength(7); // step 0 has no curvature
  });

  test("shades the spread of the curvature, if it was measured", () => {
    expect(all(draw(profilePayload(20)).svg, ".spread")).toHaveLength(1);
    expect(all(draw(profilePayload(20, { curvature_sd: null })).svg, ".spread")).toHaveLength(0);
    expect(all(draw(profilePayload(20, { curvature_sd: Array(20).fill(0) })).svg, ".spread")).toHaveLength(0);
  });

  test("keeps the spread inside the plot", () => {
    const { layout } = draw(profilePayload(20, { curvature_sd: Array(20).fill(0.5) }));
    const { spread } = layout.curves.find(({ name }) => name === "curvature");
    for (const y of [...spread.upper, ...spread.lower].filter((value) => value !== null)) {
      expect(y).toBeGreaterThanOrEqual(layout.frame.top);
      expect(y).toBeLessThanOrEqual(layout.frame.bottom);
    }
  });

  test("says what it shows to those who cannot see it", () => {
    const { svg } = draw(schedulePayload(20));
    expect(svg.getAttribute("role")).toBe("img");
    expect(svg.querySelector(":scope > title").textContent).toContain("11 of 20 computed");
  });

  test("marks a step with a line and a point on each curve, and takes the mark away", () => {
    const { svg, layout, mark } = draw(schedulePayload(20));
    mark(7);
    const line = svg.querySelector(".marks > line");
    expect(Number(line.getAttribute("x1"))).toBeCloseTo(layout.xs[7], 1);
    expect(all(svg, ".marks .marker")).toHaveLength(2);
    mark(0); // where neither curve is known
    expect(all(svg, ".marks .marker")).toHaveLength(0);
    mark(null);
    expect(svg.querySelector(".marks").childElementCount).toBe(0);
  });
});

describe("degenerate data", () => {
  const flat = { curvature: Array(12).fill(0.05), gamma: Array(12).fill(1) };
  test.each([
    ["all values equal", schedulePayload(12, flat)],
    ["all values zero", schedulePayload(12, { curvature: Array(12).fill(0), gamma: Array(12).fill(0) })],
    ["one curve unknown", schedulePayload(12, { gamma: Array(12).fill(null) })],
    ["both curves unknown", schedulePayload(12, { gamma: null, curvature: null })],
    ["a gap in a curve", schedulePayload(12, { gamma: [1, 1, 1, null, null, null, 1, 1, 1, 1, 1, 1] })],
    ["no sigmas", schedulePayload(12, { sigmas: null })],
    ["equal timesteps", schedulePayload(12, { timesteps: Array(12).fill(3) })],
    ["negative values", schedulePayload(12, { curvature: Array(12).fill(-0.5), gamma: Array(12).fill(-2) })],
    ["one enormous value", schedulePayload(12, { gamma: [...Array(11).fill(1), 1e9] })],
    ["nothing reused", schedulePayload(12, { reused: Array(12).fill(false) })],
    ["everything reused", schedulePayload(12, { reused: Array(12).fill(true) })],
    ["two steps", schedulePayload(2)],
    ["four steps", schedulePayload(4)],
    ["a thousand steps", schedulePayload(1000)],
    ["junk", schedulePayload(JUNK.length, { gamma: JUNK, curvature: JUNK, noise: JUNK, sigmas: JUNK })],
  ])(
    "%s: every coordinate is a number, in a plot of any size",
    (_, payload) => {
      for (const [width, height] of [
        [215, 150],
        [400, 180],
        [690, 500],
        [30, 30],
      ]) {
        const { svg, mark, layout } = draw(payload, width, height);
        for (let step = 0; step < layout.xs.length; step += 1) mark(step);
        expect(coordinates(svg).filter((value) => !Number.isFinite(value))).toEqual([]);
        expect(layout.frame.right).toBeGreaterThan(layout.frame.left);
        expect(layout.frame.bottom).toBeGreaterThan(layout.frame.top);
        expect(svg.outerHTML).not.toMatch(/NaN|Infinity|undefined|null/);
      }
    },
    20000,
  );

  test("an unknown curve has no axis and no place in the legend", () => {
    const { svg } = draw(schedulePayload(12, { gamma: null }));
    expect(svg.querySelector(".gamma")).toBeNull();
    expect(svg.querySelector(".legend").textContent).toBe("curvaturereused");
  });

  test("a gap in a curve is a gap in its line", () => {
    const { svg } = draw(schedulePayload(12, { gamma: [1, 1, 1, null, null, null, 1, 1, 1, 1, 1, 1] }));
    const d = svg.querySelector(".curve.gamma path.line").getAttribute("d");
    expect(d.match(/M/g)).toHaveLength(2);
  });
});

describe("the axes", () => {
  const lowestTick = (gamma) =>
    draw(schedulePayload(12, { gamma })).svg.querySelector(".grid .gamma").textContent;

  test("begin at 0, also for a hair below it", () => {
    expect(Number(lowestTick([-0.01, ...Array(11).fill(1)]))).toBe(0);
  });

  test("go below 0 if the values do", () => {
    expect(Number(lowestTick([-0.4, ...Array(11).fill(1)]))).toBeLessThanOrEqual(-0.4);
  });
});

describe("a sampling run", () => {
  const live = (kinds, steps, repaid = kinds.map(() => null)) => ({
    steps,
    kinds,
    milliseconds: kinds.map(() => 1),
    repaid,
  });

  test("marks the computed steps that put something right, and says how much", () => {
    const run = live(["full", "full", "reused", "full"], 4, [0, 0, 0, 0.25]);
    const { svg } = drawPlot(readPayload(schedulePayload(4)), 400, 240, { live: run });
    expect(all(svg, ".dot.repaid")).toHaveLength(1);
    expect(all(svg, ".strip.run rect title").map((title) => title.textContent)).toEqual([
      "step 0: full, 1 ms",
      "step 1: full, 1 ms",
      "step 2: reused, 1 ms",
      "step 3: full, repaid 0.25 %, 1 ms",
    ]);
  });

  test("has its cells below those of the plan, at the same places if it has as many steps", () => {
    const kinds = ["full", "full", "reused", "corrected"];
    const { svg, layout } = draw(schedulePayload(8), 400, 180, { live: live(kinds, 8) });
    const [plan, run] = [".strip:not(.run) rect", ".strip.run rect"].map((each) => all(svg, each));
    expect(run).toHaveLength(4);
    const outline = 0.5; // whose half hollow cells are smaller by
    run.forEach((cell, step) =>
      expect(Math.abs(numbersOf(cell)[0] - numbersOf(plan[step])[0])).toBeLessThanOrEqual(outline),
    );
    expect(layout.run.top).toBeGreaterThan(layout.strip.bottom);
    expect(run.map((cell) => cell.getAttribute("class"))).toEqual([
      "computed",
      "computed",
      "reused",
      "reused",
    ]);
    expect(all(svg, ".dot")).toHaveLength(1);
  });

  test("spreads another number of steps over the same width", () => {
    const { layout } = draw(schedulePayload(8), 400, 180, { live: live(["full"], 5) });
    expect(layout.runCells).toHaveLength(6);
    expect([layout.runCells[0], layout.runCells[5]]).toEqual([layout.frame.left, layout.frame.right]);
  });

  test.each([1, 4, 20, 1000])("of %d steps: every coordinate is a number", (steps) => {
    for (const payload of [schedulePayload(8), profilePayload(8), schedulePayload(1000)]) {
      const kinds = Array.from({ length: steps }, (_, step) => ["full", "reused", "corrected"][step % 3]);
      const { svg } = draw(payload, 250, 150, { live: live(kinds, steps) });
      expect(coordinates(svg).filter((value) => !Number.isFinite(value))).toEqual([]);
    }
  });
});

test("a forced step has a diamond in its cell", () => {
  const data = withSettings(readPayload(replannablePayload()), { overrides: "3 reuse, 4 full" });
  const { svg } = drawPlot(data, 400, 180);
  expect(all(svg, ".pin")).toHaveLength(2);
  expect(all(svg, ".pin.on-hollow")).toHaveLength(1);
  expect(svg.querySelector(":scope > title").textContent).toContain("forced steps: 3, 4");
});

describe("curves", () => {
  const look = (curves, axis = "timestep") => ({ look: { curves, axis } });
  const payload = schedulePayload(12, { gain: Array(12).fill(0.4), log_snr: Array(12).fill(1) });

  test("two of them have the axes, the others are drawn without", () => {
    const { svg, layout } = draw(payload, 400, 180, look(["curvature", "gamma", "error", "gain"]));
    expect(all(svg, ".curve path.line")).toHaveLength(4);
    expect(layout.curves.map(({ name, side }) => [name, side]).sort()).toEqual([
      ["curvature", "left"],
      ["error", null],
      ["gain", null],
      ["gamma", "right"],
    ]);
    expect(all(svg, ".grid .error, .grid .gain")).toHaveLength(0);
    expect(svg.querySelector(".legend").textContent).toBe("gammacurvatureerrorgainreused");
  });

  test("each has the axis that is free", () => {
    const { layout } = draw(payload, 400, 180, look(["curvature", "error"]));
    expect(layout.curves.map(({ name, side }) => [name, side])).toEqual([
      ["curvature", "left"],
      ["error", "right"],
    ]);
  });

  test("none leaves the plan", () => {
    const { svg } = draw(payload, 400, 180, look([]));
    expect(all(svg, ".curve")).toHaveLength(0);
    expect(all(svg, ".strip rect")).toHaveLength(12);
  });

  test("an unknown log-SNR leaves the timesteps", () => {
    const { layout } = draw(schedulePayload(12), 400, 180, look(["gamma"], "log-SNR"));
    expect(layout.rows[0]).toBe("timestep");
  });
});

describe("the trajectory in space", () => {
  test.each([
    ["a path", Array.from({ length: 12 }, (_, step) => [step, step % 3, -(step ** 2)])],
    ["a point", Array(12).fill([1, 1, 1])],
  ])("%s: every coordinate is a number, and inside", (_, path) => {
    const data = readPayload(schedulePayload(12, { path }));
    for (const yaw of [0, 1, 4]) {
      const { svg } = drawSpace(data, 300, 150, { yaw, pitch: 0.4 });
      expect(coordinates(svg).filter((value) => !Number.isFinite(value))).toEqual([]);
      for (const circle of all(svg, "circle")) {
        expect(Number(circle.getAttribute("cx"))).toBeGreaterThan(0);
        expect(Number(circle.getAttribute("cx"))).toBeLessThan(300);
      }
    }
  });

  test("junk is no path", () => {
    for (const junk of JUNK) {
      expect(readPayload(schedulePayload(12, { path: junk })).path).toBeNull();
      expect(readPayload(schedulePayload(12, { path: Array(12).fill(junk) })).path).toBeNull();
    }
  });
});
