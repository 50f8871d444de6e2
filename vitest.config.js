/** Unit tests of the plot: `npx vitest run`. Those in a real browser are started by tests/browser/run.py. */

import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    dir: "tests/js",
    include: ["**/*.test.js"],
    environment: "jsdom",
  },
});
