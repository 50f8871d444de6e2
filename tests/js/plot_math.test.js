import { describe, expect, test } from "vitest";

import {
  areaPath,
  labelledSteps,
  linePath,
  linearScale,
  narrowest,
  nearestStep,
  pointerOffset,
  runsOf,
  stepPositions,
  valueAxis,
} from "../../js/plot_math.js";

describe("linearScale", () => {
  test("maps the ends of the domain to the ends of the range", () => {
    const scale = linearScale([0, 10], [100, 20]);
    expect([0, 5, 10].map(scale)).toEqual([100, 60, 20]);
  });

  test("puts everything at the start of the range if the domain is empty", () => {
    expect(linearScale([3, 3], [100, 20])(3)).toBe(100);
  });
});

describe("valueAxis", () => {
  test.each([
    [0, 7.1, 4, [0, 2, 4, 6, 8], 0],
    [0, 1.3, 4, [0, 0.4, 0.8, 1.2, 1.6], 1],
    [-0.3, 1.2, 4, [-0.4, 0, 0.4, 0.8, 1.2], 1],
    [0, 10, 2, [0, 5, 10], 0],
    [0, 0.049, 5, [0, 0.01, 0.02, 0.03, 0.04, 0.05], 2],
    [0, 9.1, 1, [0, 10], 0],
    [0, 43000, 3, [0, 15000, 30000, 45000], 0],
  ])("from %d to %d in %d intervals", (low, high, intervals, ticks, decimals) => {
    const axis = valueAxis(low, high, intervals);
    expect(axis.ticks).toHaveLength(ticks.length);
    axis.ticks.forEach((tick, index) => expect(tick).toBeCloseTo(ticks[index], 10));
    expect(axis.domain).toEqual([axis.ticks[0], axis.ticks.at(-1)]);
    expect(axis.decimals).toBe(decimals);
  });

  test("has room around a single value", () => {
    for (const value of [-4, 0, 1e-9, 7, 1e9]) {
      const [low, high] = valueAxis(value, value, 4).domain;
      expect(low).toBeLessThan(value);
      expect(high).toBeGreaterThan(value);
    }
  });

  test("contains its values, and its labels differ, for ranges of any size", () => {
    for (let exponent = -9; exponent <= 9; exponent += 1) {
      for (const factor of [1, 1.0001, 2.7, 3.3, 6.1, 9.99]) {
        const high = factor * 10 ** exponent;
        const { domain, ticks, decimals } = valueAxis(0, high, 4);
        expect(domain[0]).toBeLessThanOrEqual(0);
        expect(domain[1]).toBeGreaterThanOrEqual(high * (1 - 1e-9));
        expect(domain[1]).toBeLessThan(high * 2.01);
        expect(new Set(ticks.map((tick) => tick.toFixed(decimals))).size).toBe(5);
      }
    }
  });
});

describe("stepPositions", () => {
  const gaps = (values) => values.slice(1).map((value, index) => value - values[index]);

  test("are proportional to the timestep, each in the middle of its neighbours' half ways", () => {
    const { centres, edges } = stepPositions([1000, 800, 500, 200]);
    // gaps 200, 300, 300; half a gap is added at each end: 1050 in all
    [100, 300, 600, 900].forEach((at, step) => expect(centres[step]).toBeCloseTo(at / 1050));
    [0, 200, 450, 750, 1050].forEach((at, step) => expect(edges[step]).toBeCloseTo(at / 1050));
  });

  test("keep half of an equal spacing where timesteps are bunched", () => {
    const steps = Array.from({ length: 50 }, (_, step) => 1 - step / 50);
    const shifted = steps.map((sigma) => (1000 * 7 * sigma) / (1 + 6 * sigma));
    const apart = gaps(stepPositions(shifted).centres);
    const equal = apart.reduce((sum, gap) => sum + gap) / apart.length;
    expect(Math.min(...apart)).toBeCloseTo(equal / 2);
    expect(apart.every((gap, index) => index === 0 || gap >= apart[index - 1])).toBe(true);
  });

  test.each([
    ["equal", [500, 500, 500, 500]],
    ["rising", [0, 300, 600, 900]],
    ["unordered", [1000, 200, 700, 0]],
  ])("are equally spaced for %s timesteps", (_, timesteps) => {
    const { centres, edges } = stepPositions(timesteps);
    [1, 3, 5, 7].forEach((eighth, step) => expect(centres[step]).toBeCloseTo(eighth / 8));
    [0, 2, 4, 6, 8].forEach((eighth, step) => expect(edges[step]).toBeCloseTo(eighth / 8));
  });

  test.each([2, 4, 1000])("rise from 0 to 1 for %d steps", (count) => {
    const { centres, edges } = stepPositions(
      Array.from({ length: count }, (_, step) => 999 - (999 * step) / count),
    );
    expect(centres).toHaveLength(count);
    expect(edges).toHaveLength(count + 1);
    expect(edges[0]).toBe(0);
    expect(edges[count]).toBe(1);
    expect(narrowest(edges)).toBeGreaterThan(0);
    centres.forEach((centre, step) => {
      expect(centre).toBeGreaterThan(edges[step]);
      expect(centre).toBeLessThan(edges[step + 1]);
    });
  });
});

describe("nearestStep", () => {
  const edges = [10, 20, 50, 60];

  test.each([
    [-5, 0],
    [10, 0],
    [19.9, 0],
    [20, 1],
    [49.9, 1],
    [50, 2],
    [60, 2],
    [1e9, 2],
  ])("position %d is in the cell of step %d", (position, step) => {
    expect(nearestStep(edges, position)).toBe(step);
  });

  test("finds each of a thousand", () => {
    const many = Array.from({ length: 1001 }, (_, step) => step);
    for (let step = 0; step < 1000; step += 1) expect(nearestStep(many, step + 0.5)).toBe(step);
  });
});

test("pointerOffset undoes the client's CSS scale", () => {
  // a plot 400 pixels wide, drawn at 160 %: 640 pixels on the screen
  expect(pointerOffset(740, { left: 100, width: 640 }, 400)).toBe(400);
  expect(pointerOffset(420, { left: 100, width: 640 }, 400)).toBe(200);
});

describe("labelledSteps", () => {
  test("spreads the labels and keeps the first and the last", () => {
    expect(labelledSteps([0, 10, 20, 30, 40, 50, 60], 20)).toEqual([0, 2, 4, 6]);
  });

  test("never puts two closer than the distance", () => {
    const positions = Array.from({ length: 60 }, (_, step) => 300 * (step / 59) ** 2);
    const labelled = labelledSteps(positions, 38).map((step) => positions[step]);
    expect(labelled.length).toBeGreaterThan(4);
    expect(narrowest(labelled)).toBeGreaterThanOrEqual(38);
  });

  test("labels the two ends if there is no room for more", () => {
    expect(labelledSteps([0, 1, 2, 3], 38)).toEqual([0, 3]);
  });
});

describe("paths", () => {
  test("a line joins its points", () => {
    expect(linePath([0, 10, 20], [5, 6.123, 7])).toBe("M0 5L10 6.12L20 7");
  });

  test("a null interrupts a line, and a point on its own stays visible", () => {
    expect(linePath([0, 1, 2, 3, 4, 5], [null, 8, null, 6, 5, null])).toBe("M1 8h0M3 6L4 5");
  });

  test("nothing but nulls is no line", () => {
    expect(linePath([0, 1], [null, null])).toBe("");
  });

  test("an area goes along the top and back along the bottom", () => {
    expect(areaPath([0, 1, 2], [1, 2, 3], [5, 6, 7])).toBe("M0 1L1 2L2 3L2 7L1 6L0 5Z");
  });

  test("an area is left out where either line is, and where only one point remains", () => {
    expect(areaPath([0, 1, 2, 3, 4], [1, 1, null, 1, 1], [2, 2, 2, 2, null])).toBe("M0 1L1 1L1 2L0 2Z");
  });
});

test("runsOf gives the longest stretches of equal values", () => {
  expect(runsOf([false, true, true, false])).toEqual([
    { value: false, start: 0, end: 1 },
    { value: true, start: 1, end: 3 },
    { value: false, start: 3, end: 4 },
  ]);
  expect(runsOf([])).toEqual([]);
});
