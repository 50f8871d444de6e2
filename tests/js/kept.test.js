import { describe, expect, test } from "vitest";

import { KEPT, pack, unpack, withProperty } from "../../js/kept.js";
import { readPayload } from "../../js/plot_data.js";
import { JUNK, replannablePayload } from "./payloads.js";

describe("a kept plot", () => {
  test("comes back as it was, to the last bit, in one short line", () => {
    const payload = replannablePayload({ note: null });
    payload.replan.error.values = payload.replan.error.values.map((value) => value / 3);
    const { note, ...lasting } = payload;
    const text = pack(payload);
    expect(unpack(text)).toEqual(lasting);
    expect(text).not.toContain("\n");
    expect(text.length).toBeLessThan(JSON.stringify(payload).length);
  });

  test("leaves out what was said of the run, which may name a folder", () => {
    expect(pack(replannablePayload({ note: "Saved as /home/me/models/x.json" }))).not.toContain("home");
  });

  test("leaves out what plans anew where that is long", () => {
    const payload = replannablePayload();
    payload.replan.error = { distances: 4, gaps: 5, values: Array(20000).fill(0.1) };
    expect(unpack(pack(payload)).replan).toBeNull();
    expect(readPayload(unpack(pack(payload))).reused).toEqual(payload.reused);
  });

  test("of nothing is nothing, and junk is too", () => {
    for (const junk of [...JUNK, '{"replan": {"error": {"values": "not base64!"}}}', "[", "null"]) {
      expect(readPayload(unpack(junk))).toBeNull();
      expect(typeof pack(junk)).toBe("string");
    }
    expect(pack(undefined)).toBe("");
    expect(unpack("")).toBeNull();
  });
});

describe("in a serialised workflow", () => {
  const state = {
    nodes: [
      { id: 1, type: "A" },
      { id: 2, type: "outer", properties: { x: 1 } },
    ],
    definitions: {
      subgraphs: [
        { id: "outer", nodes: [{ id: 7, type: "inner" }] },
        { id: "inner", nodes: [{ id: 1, type: "B", properties: { x: 1 } }] },
      ],
    },
  };
  const frozen = JSON.stringify(state);

  test("a node gets the property, and the old state stays", () => {
    const { nodes } = withProperty(state, "1", KEPT, "text");
    expect(nodes).toEqual([{ id: 1, type: "A", properties: { [KEPT]: "text" } }, state.nodes[1]]);
    expect(JSON.stringify(state)).toBe(frozen);
  });

  test("a node in subgraphs is found by the nodes on the way", () => {
    const changed = withProperty(state, "2:7:1", KEPT, "text");
    expect(changed.definitions.subgraphs[1].nodes[0].properties).toEqual({ x: 1, [KEPT]: "text" });
    expect(changed.nodes).toBe(state.nodes);
    expect(JSON.stringify(state)).toBe(frozen);
  });

  test("nothing changes where there is nothing to change", () => {
    for (const key of ["3", "1:1", "2:8:1", ""]) expect(withProperty(state, key, KEPT, "text")).toBe(state);
    const kept = withProperty(state, "2:7:1", KEPT, "text");
    expect(withProperty(kept, "2:7:1", KEPT, "text")).toBe(kept);
    expect(withProperty({}, "1", KEPT, "text")).toEqual({});
  });
});
