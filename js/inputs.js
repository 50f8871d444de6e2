/** The inputs of a node, wherever their values are set: on the node, or on that of the subgraph it is in. */

const SUBGRAPH_INPUT = -10; // the origin of links that come in from outside of a subgraph

/**
 * The node and widget that hold an input's value.
 * @param {object} node
 * @param {string} name of the input
 * @param {object} root the outermost graph
 * @returns {{ node: object, widget: object } | null} null where it comes from another node, or where several
 * nodes share the subgraph and have a value each
 */
export function holderOf(node, name, root) {
  const input = node.inputs?.find((each) => (each.widget?.name ?? each.name) === name);
  if (!input || input.link == null) {
    const widget = node.widgets?.find((each) => each.name === name);
    return widget ? { node, widget } : null;
  }
  const link = node.graph?.getLink?.(input.link);
  if (Number(link?.origin_id) !== SUBGRAPH_INPUT) return null;
  const outer = node.graph.inputs?.[link.origin_slot]?.name;
  const owners = nodesOf(root).filter((each) => each.subgraph === node.graph);
  return owners.length === 1 ? holderOf(owners[0], outer, root) : null;
}

/** Whether something is linked to an input. */
export function isConnected(node, name) {
  return Boolean(node.inputs?.some((input) => input.name === name && input.link != null));
}

/**
 * The node of an output's key: ids joined by colons, a subgraph's being its own or that of its node.
 * @param {string} key
 * @param {object} root the outermost graph
 */
export function nodeOf(key, root) {
  const path = key.split(":");
  const id = path.pop();
  let graph = root;
  for (const part of path) graph = root.subgraphs?.get(part) ?? graph?.getNodeById(part)?.subgraph;
  return graph?.getNodeById(id);
}

/** All nodes of a graph and of the subgraphs in it. @param {object} root */
export function nodesOf(root) {
  return [root, ...(root.subgraphs?.values() ?? [])].flatMap((graph) => graph.nodes);
}
