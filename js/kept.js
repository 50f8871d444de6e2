/**
 * A plot is kept with its node in the workflow, so that it is there after the page was loaded anew, and for
 * whoever opens the file. Nothing here touches the page.
 */

/** The property of the node that holds it. */
export const KEPT = "omnicache data";

const LARGEST = 65536; // characters; of a longer plot what solves the plan anew is left out

/**
 * @param {object | undefined} payload as a node sends it
 * @returns {string} one line; empty if there is none
 */
export function pack(payload) {
  if (typeof payload !== "object" || payload === null) return "";
  const { note, ...lasting } = payload; // a note is about one run, and may name a folder
  const text = JSON.stringify(lasting, (key, value) =>
    key === "values" && Array.isArray(value) ? encoded(value) : value,
  );
  return text.length <= LARGEST ? text : JSON.stringify({ ...lasting, replan: null });
}

/**
 * @param {unknown} text from a workflow, so it may be anything
 * @returns {object | null} the payload without its note
 */
export function unpack(text) {
  if (typeof text !== "string" || !text) return null;
  try {
    return JSON.parse(text, (key, value) =>
      key === "values" && typeof value === "string" ? decoded(value) : value,
    );
  } catch {
    return null;
  }
}

/**
 * A serialised workflow in which a node has another value of a property.
 * @param {object} state as the graph serialises itself
 * @param {string} key ids joined by colons, from the outermost subgraph's node to the node
 * @param {string} name of the property
 * @param {string} value
 * @returns {object} the state itself where there is no such node, or where it has that value
 */
export function withProperty(state, key, name, value) {
  const path = key.split(":");
  const id = path.pop();
  const subgraphs = state.definitions?.subgraphs ?? [];
  let graph = state;
  for (const part of path) {
    const type = graph?.nodes?.find((node) => String(node.id) === part)?.type;
    graph = subgraphs.find((subgraph) => subgraph.id === type);
  }
  const node = graph?.nodes?.find((each) => String(each.id) === id);
  if (!node || node.properties?.[name] === value) return state;
  const changed = { ...node, properties: { ...node.properties, [name]: value } };
  const nodes = graph.nodes.map((each) => (each === node ? changed : each));
  if (graph === state) return { ...state, nodes };
  const replaced = subgraphs.map((each) => (each === graph ? { ...each, nodes } : each));
  return { ...state, definitions: { ...state.definitions, subgraphs: replaced } };
}

/** Exact, and half as long as decimal digits. */
function encoded(values) {
  const bytes = new Uint8Array(new Float64Array(values).buffer);
  return btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
}

function decoded(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  return Array.from(new Float64Array(bytes.buffer));
}
