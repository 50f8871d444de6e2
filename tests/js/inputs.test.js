import { describe, expect, test } from "vitest";

import { holderOf, isConnected, nodeOf, nodesOf } from "../../js/inputs.js";

/** A graph as the client has it: nodes, links by id, and the inputs of a subgraph. */
function createGraph(nodes, { links = {}, inputs = [] } = {}) {
  const graph = { nodes, inputs, getLink: (id) => links[id] };
  graph.getNodeById = (id) => nodes.find((node) => String(node.id) === String(id));
  for (const node of nodes) node.graph = graph;
  return graph;
}

const widget = (name, value) => ({ name, value });
const slot = (name, link = null) => ({ name, link, widget: { name } });

describe("an input's value", () => {
  test("is on the node's own widget", () => {
    const node = { id: 1, widgets: [widget("budget", 0.4)], inputs: [slot("budget")] };
    const root = createGraph([node]);
    expect(holderOf(node, "budget", root).widget.value).toBe(0.4);
    expect(holderOf({ ...node, inputs: undefined }, "budget", root).widget.value).toBe(0.4);
    expect(holderOf(node, "other", root)).toBeNull();
  });

  test("is not known where it comes from another node", () => {
    const node = { id: 1, widgets: [widget("budget", 0.4)], inputs: [slot("budget", 5)] };
    const root = createGraph([node], { links: { 5: { origin_id: 3, origin_slot: 0 } } });
    expect(holderOf(node, "budget", root)).toBeNull();
    expect(isConnected(node, "budget")).toBe(true);
    expect(isConnected(node, "overrides")).toBe(false);
  });

  /** The scheduler two subgraphs deep; each passes the input on under another name. */
  function nested() {
    const node = { id: 1, widgets: [widget("overrides", "")], inputs: [slot("overrides", 5)] };
    const inside = { links: { 5: { origin_id: -10, origin_slot: 1 } }, inputs: [{}, { name: "inner" }] };
    const inner = createGraph([node], inside);
    const middle = { id: 2, subgraph: inner, widgets: [widget("inner", "")], inputs: [slot("inner", 6)] };
    const outside = { links: { 6: { origin_id: -10, origin_slot: 0 } }, inputs: [{ name: "outer" }] };
    const outer = createGraph([middle], outside);
    const top = { id: 3, subgraph: outer, widgets: [widget("outer", "4 full")], inputs: [slot("outer")] };
    const root = createGraph([top]);
    root.subgraphs = new Map([
      ["a", inner],
      ["b", outer],
    ]);
    return { node, top, outer, root };
  }

  test("is on the node of the outermost subgraph that it is promoted to", () => {
    const { node, top, root } = nested();
    expect(holderOf(node, "overrides", root)).toEqual({ node: top, widget: top.widgets[0] });
    expect(nodeOf("3:2:1", root)).toBe(node);
    expect(nodeOf("a:1", root)).toBe(node);
    expect(nodeOf("3:9:1", root)).toBeUndefined();
    expect(nodesOf(root)).toHaveLength(3);
  });

  test("is not known where two nodes share the subgraph, each with a value", () => {
    const { node, outer, root } = nested();
    root.nodes.push({ id: 4, subgraph: outer, widgets: [widget("outer", "5 full")], inputs: [slot("outer")] });
    expect(holderOf(node, "overrides", root)).toBeNull();
  });
});
