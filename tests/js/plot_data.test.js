import { describe, expect, test } from "vitest";

import { caption, description, readPayload, shortNumber, stepFacts, withSettings } from "../../js/plot_data.js";
import { JUNK, profilePayload, replannablePayload, schedulePayload } from "./payloads.js";

describe("readPayload", () => {
  test("gives angles in degrees and noise in percent", () => {
    const data = readPayload(
      profilePayload(4, { curvature: [null, Math.PI, 0, 0.1], noise: [null, 0.5, 0, 1] }),
    );
    expect(data.curvature.slice(0, 3)).toEqual([null, 180, 0]);
    expect(data.noise).toEqual([null, 50, 0, 100]);
    expect(data.count).toBe(4);
  });

  test("counts the computed steps itself", () => {
    const data = readPayload(
      schedulePayload(4, { reused: [false, false, true, false], full: 99, asked: -1 }),
    );
    expect([data.full, data.asked]).toEqual([3, 4]);
  });

  test("is nothing where there is nothing to draw", () => {
    for (const junk of JUNK) {
      expect(readPayload(junk)).toBeNull();
      expect(readPayload(profilePayload(4, { timesteps: junk }))).toBeNull();
      if (typeof junk !== "number" || !(Math.abs(junk) < 1)) {
        expect(readPayload(profilePayload(4, { timesteps: [1000, 500, junk, 0] }))).toBeNull();
      }
    }
    expect(readPayload(profilePayload(1))).toBeNull();
    expect(readPayload(profilePayload(20000))).toBeNull();
  });

  test("takes junk in any other place for unknown", () => {
    for (const key of ["sigmas", "curvature", "curvature_sd", "gamma", "noise", "gain"]) {
      for (const junk of JUNK) {
        const data = readPayload(profilePayload(4, { [key]: junk }));
        const name = key === "curvature_sd" ? "curvatureSpread" : key;
        expect(data[name]).toEqual([null, null, null, null]);
        const [value] = readPayload(profilePayload(4, { [key]: [junk, 1, 1, 1] }))[name];
        expect(value === null || value === 0).toBe(true);
      }
      expect(readPayload(profilePayload(4, { [key]: [1, 1, 1] })).count).toBe(4);
    }
    for (const junk of JUNK) {
      const data = readPayload(schedulePayload(4, { title: junk, note: junk, speedup: junk }));
      expect(typeof data.title).toBe("string");
      expect(typeof data.note).toBe("string");
      expect(data.settings).toBeNull();
      expect(data.speedup).toBeNull();
      expect(readPayload(schedulePayload(4, { reused: junk })).reused).toBeNull();
    }
  });

  test("shortens endless texts", () => {
    expect(readPayload(profilePayload(4, { title: "x".repeat(1e6) })).title.length).toBeLessThan(1000);
  });
});

describe("caption", () => {
  const of = (payload) => caption(readPayload(payload));

  test("says how many steps are computed, and the predicted speed-up", () => {
    expect(of(schedulePayload(50, { speedup: 2.41 }))).toBe("26 of 50 computed · predicted 2.4×");
    expect(of(schedulePayload(50, { speedup: 12.3 }))).toBe("26 of 50 computed · predicted 12×");
  });

  test("leaves out what is not known", () => {
    expect(of(schedulePayload(50, { speedup: null }))).toBe("26 of 50 computed");
    expect(of(schedulePayload(50, { speedup: -3 }))).toBe("26 of 50 computed");
  });

  test("says of a profile that it was measured", () => {
    expect(of(profilePayload(50))).toBe("50 steps measured");
  });
});

describe("stepFacts", () => {
  const payload = schedulePayload(4, {
    timesteps: [1000, 742.6, 500, 250],
    sigmas: [1, 0.7426, 0.5, 0.25],
    curvature: [null, 0.05, 0.06, 0.07],
    curvature_sd: [0, 0.01, 0, null],
    gamma: [null, null, 0.9876, 1],
    noise: [null, 0.0123, 0.01, 0.01],
    gain: [null, 0.25, 0.5, 0.5],
    reused: [false, false, true, false],
  });
  const data = readPayload(payload);

  test("tells the values of a step, counted from 0, with their units", () => {
    expect(stepFacts(data, 1)).toEqual({
      heading: "step 1",
      state: "computed",
      facts: [
        ["timestep", "743"],
        ["sigma", "0.743"],
        ["curvature", "2.86° ± 0.57°"],
        ["gamma", "–"],
        ["error", "1.23 %"],
        ["gain", "25 %"],
      ],
    });
  });

  test("tells whether the step is reused, and no spread where there is none", () => {
    const { state, facts } = stepFacts(data, 2);
    expect(state).toBe("reused");
    expect(facts[2]).toEqual(["curvature", "3.44°"]);
    expect(facts[3]).toEqual(["gamma", "0.988"]);
  });

  test("shows a dash, without unit, for what was not measured", () => {
    expect(stepFacts(data, 0).facts.slice(2)).toEqual([
      ["curvature", "–"],
      ["gamma", "–"],
      ["error", "–"],
      ["gain", "–"],
    ]);
  });

  test("says nothing about reuse for a profile", () => {
    expect(stepFacts(readPayload(profilePayload(4)), 1).state).toBe("");
  });
});

describe("description", () => {
  test("puts the plot into words", () => {
    const changes = { curvature: [null, 0.1, 0.5, 0.2], reused: [false, false, true, false], speedup: 1.3 };
    expect(description(readPayload(schedulePayload(4, changes)))).toBe(
      "sd3 · euler · 4 steps. 3 of 4 computed · predicted 1.3×. " +
        "curvature is largest, 28.6°, at timestep 500. reused steps: 2.",
    );
  });

  test("needs no curvature and no title", () => {
    expect(description(readPayload(profilePayload(4, { curvature: null, title: null })))).toBe(
      "4 steps measured.",
    );
  });
});

test.each([
  [0, "0"],
  [1000, "1000"],
  [999.6, "1000"],
  [57.6923, "57.7"],
  [1, "1"],
  [0.98765, "0.988"],
  [0.0123, "0.0123"],
  [-2.5, "-2.5"],
  [0.00001234, "1.2e-5"],
  [1234567, "1.2e+6"],
  [null, "–"],
])("shortNumber writes %s as %s", (value, text) => {
  expect(shortNumber(value)).toBe(text);
});

test("shortNumber takes fewer digits, but keeps the whole part", () => {
  expect(shortNumber(57.6923, 0)).toBe("58");
  expect(shortNumber(0.058, 2)).toBe("0.058");
  expect(shortNumber(14.61, 2)).toBe("15");
  expect(shortNumber(993.2, 2)).toBe("993");
});

describe("what it takes to plan anew", () => {
  test("is none if any of it is junk", () => {
    const payload = replannablePayload();
    expect(readPayload(payload).replan).not.toBeNull();
    for (const key of Object.keys(payload.replan)) {
      for (const junk of JUNK.filter((each) => !(typeof each === "number" && Math.abs(each) < 1))) {
        const replan = { ...payload.replan, [key]: junk };
        expect(readPayload({ ...payload, replan }).replan).toBeNull();
      }
    }
    for (const junk of JUNK) {
      const error = { distances: 4, gaps: 1, values: Array(40).fill(junk) };
      const replan = { ...payload.replan, error };
      expect(readPayload({ ...payload, replan }).replan === null || typeof junk === "number").toBe(true);
      expect(readPayload({ ...payload, replan: junk }).replan).toBeNull();
    }
  });

  test("is of no use without the settings that the plan was made of", () => {
    const payload = replannablePayload();
    for (const key of Object.keys(payload.settings)) {
      const { [key]: left, ...settings } = payload.settings;
      const data = readPayload({ ...payload, settings });
      expect(data.settings).toBeNull();
      expect(withSettings(data, { budget: 0.2 })).toBe(data);
    }
  });
});

describe("other settings", () => {
  const data = readPayload(replannablePayload());
  const reusedSteps = ({ reused }) => reused.flatMap((value, step) => (value ? [step] : []));

  test("make another plan", () => {
    expect(reusedSteps(withSettings(data, {}))).toEqual([2, 4, 6, 8]);
    expect(reusedSteps(withSettings(data, { budget: 0.2 }))).toEqual([2, 4]);
    expect(reusedSteps(withSettings(data, { budget: 8, budget_kind: "full steps" }))).toEqual([2, 4]);
    expect(reusedSteps(withSettings(data, { budget: 0.2, cost: "reach" }))).toEqual([2, 5]);
    expect(reusedSteps(withSettings(data, { budget: 0.2, protect_first: 4 }))).toEqual([4, 6]);
    expect(withSettings(data, { budget: 0.2 }).full).toBe(8);
  });

  test("that no plan can meet are told", () => {
    const { reused, note, speedup } = withSettings(data, { budget: 0.9 });
    expect([reused, speedup]).toEqual([null, null]);
    expect(caption(withSettings(data, { budget: 0.9 }))).toBe("no plan with these inputs");
    expect(note).toMatch(/^budget: 9 of 10 steps cannot be reused/);
    expect(withSettings(data, { budget: 7 }).note).toMatch(/out of range; a reuse ratio lies between 0 and 1/);
    expect(withSettings(data, { cost: "toString" }).note).toBe("cost: 'toString' is not known to this plot.");
    expect(withSettings(data, { budget_kind: "x" }).note).toMatch(/^budget_kind: 'x' is not known/);
  });

  test("that need a run are told, and the plan stays", () => {
    const other = withSettings(data, { saved_profile: "two.json" });
    expect(reusedSteps(other)).toEqual([2, 4, 6, 8]);
    expect(other.note).toMatch(/^saved_profile has been changed: run/);
    const long = readPayload(replannablePayload({ replan: null }));
    expect(withSettings(long, { budget: 0.2 }).note).toMatch(/^budget has been changed: run/);
    expect(withSettings(long, {}).note).toBe("");
  });
});
