/** The trajectory's mean path in space, seen from a side that the user can turn: the "boomerang". */

const FIRST_YAW = 0.6;
const FIRST_PITCH = 0.45;

/** From where the path is first seen, in radians. */
export const FIRST_VIEW = { yaw: FIRST_YAW, pitch: FIRST_PITCH };

/**
 * The path with each coordinate stretched to -1..1: it is far longer than wide, and flat if drawn to scale.
 * @param {number[][]} path three coordinates a step
 * @returns {number[][]}
 */
export function fitted(path) {
  const ranges = [0, 1, 2].map((axis) => {
    const values = path.map((point) => point[axis]);
    return [Math.min(...values), Math.max(...values)];
  });
  return path.map((point) =>
    point.map((value, axis) => {
      const [low, high] = ranges[axis];
      return high > low ? (2 * (value - low)) / (high - low) - 1 : 0;
    }),
  );
}

/**
 * Where a point is seen, without perspective: x to the right and y down, both within -sqrt(3)..sqrt(3).
 * @param {number[]} point
 * @param {{ yaw: number, pitch: number }} view turn around the upright axis, then tilt towards the eye
 * @returns {[number, number]}
 */
export function projected([along, across, up], { yaw, pitch }) {
  const x = along * Math.cos(yaw) + across * Math.sin(yaw);
  const depth = across * Math.cos(yaw) - along * Math.sin(yaw);
  return [x, -(up * Math.cos(pitch) + depth * Math.sin(pitch))];
}
