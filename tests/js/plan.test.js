import { readFileSync } from "node:fs";

import { describe, expect, test } from "vitest";

import { errorOf, parseOverrides, solve, writeOverrides } from "../../js/plan.js";
import { readPayload, withSettings } from "../../js/plot_data.js";
import { reusedSteps } from "../../js/replan.js";

const vectors = JSON.parse(readFileSync("tests/plan_vectors.json", "utf8"));

const arithmeticCost = (modulus) => (step, last, before, following) =>
  ((step * 7919 + last * 104729 + before * 611953 + following * 15485863) % modulus) / 7;

function constraintsOf(given, overrides) {
  const { max_consecutive: maxConsecutive, protect_first: protectFirst, protect_last: protectLast } = given;
  return { maxConsecutive, protectFirst, protectLast, ...parseOverrides(overrides) };
}

test("a speed-up that reused steps cannot give is refused as the node does", () => {
  expect(reusedSteps({ budget_kind: "speed-up", budget: 2 }, 20, 0)).toBe(10);
  expect(() => reusedSteps({ budget_kind: "speed-up", budget: 2 }, 20, 1)).toThrow("cannot be had");
});

describe("the plan is the one that the node makes", () => {
  test.each(vectors.solve.map((given, index) => [index, given]))("case %d", (_, given) => {
    const cost = arithmeticCost(given.modulus);
    const plan = () => solve(given.steps, given.reused, constraintsOf(given, given.overrides), cost);
    if (given.expected.refusal) expect(plan).toThrow(given.expected.refusal);
    else
      expect(
        plan()
          .map((reused) => (reused ? "r" : "F"))
          .join(""),
      ).toBe(given.expected.reused);
  });

  const first = readPayload(vectors.payload);

  test.each(vectors.settings)("from what it sends: $settings", ({ settings, expected }) => {
    const { reused, speedup, error, note } = withSettings(first, settings);
    if (expected.refusal) return expect([reused, note]).toEqual([null, expected.refusal]);
    expect(reused).toEqual(expected.reused);
    expect(speedup).toBeCloseTo(expected.speedup, 3);
    return expect(error).toBeCloseTo(100 * expected.error, 3);
  });

  test("and without any changes it is the one that was sent, solved anew", () => {
    const bare = { ...first, reused: null, note: "" };
    expect(withSettings(bare, {}).reused).toEqual(vectors.payload.reused);
  });
});

test("an error that calibration could not measure is none", () => {
  const reused = [false, false, true, false];
  expect(errorOf(reused, () => 0.5, 2)).toBe(0.25);
  expect(errorOf(reused, () => 1e6, 2)).toBeNull();
});

describe("overrides", () => {
  test.each(vectors.overrides)("are read as the node reads them: $text", ({ text, full, reuse, refusal }) => {
    if (refusal) return expect(() => parseOverrides(text)).toThrow(refusal);
    const read = parseOverrides(text);
    const ordered = (set) => [...set].sort((a, b) => a - b);
    return expect([ordered(read.full), ordered(read.reuse)]).toEqual([full, reuse]);
  });

  test.each([
    ["", ""],
    ["5 full", "5 full"],
    ["12 reuse, 3-3 full, 10 reuse,11 reuse, 4 full", "3-4 full, 10-12 reuse"],
    ["4 full, 5 reuse, 6 full", "4 full, 5 reuse, 6 full"],
  ])("%j is written %j", (text, written) => {
    expect(writeOverrides(parseOverrides(text))).toBe(written);
  });
});
