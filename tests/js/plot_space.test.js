import { expect, test } from "vitest";

import { fitted, projected } from "../../js/plot_space.js";

test("each coordinate is stretched to -1..1", () => {
  const path = [
    [10, 5, 0.1],
    [0, 5, 0.3],
    [5, 5, 0.2],
  ];
  const points = fitted(path);
  expect(points.map(([along]) => along)).toEqual([1, -1, 0]);
  expect(points.map(([, across]) => across)).toEqual([0, 0, 0]);
  expect(points[2][2]).toBeCloseTo(0);
});

test("from the front the first coordinate goes right and the third up; from above the second goes up", () => {
  const seen = (point, yaw, pitch) =>
    projected(point, { yaw, pitch }).map((value) => Math.round(value * 1e9) / 1e9);
  expect(seen([1, 0.5, 0.25], 0, 0)).toEqual([1, -0.25]);
  expect(seen([1, 0.5, 0.25], 0, Math.PI / 2)).toEqual([1, -0.5]);
  expect(seen([1, 0.5, 0.25], Math.PI / 2, 0)).toEqual([0.5, -0.25]);
});
