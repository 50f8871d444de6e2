/** Makes a picture that stands on its own from one that the client's style sheets colour. */

const STYLES = [
  "fill",
  "fill-opacity",
  "stroke",
  "stroke-opacity",
  "stroke-width",
  "stroke-dasharray",
  "stroke-linecap",
  "stroke-linejoin",
  "opacity",
  "paint-order",
  "font-family",
  "font-size",
  "text-anchor",
];

const MARGIN = 12; // pixels around the picture

/**
 * @param {SVGSVGElement} svg in the document, so that its styles are known
 * @param {string} ground colour behind it
 * @returns {string} the text of an SVG file
 */
export function standalone(svg, ground) {
  const copy = svg.cloneNode(true);
  const originals = [svg, ...svg.querySelectorAll("*")];
  [copy, ...copy.querySelectorAll("*")].forEach((element, index) => {
    element.removeAttribute("class");
    if (element.localName === "title") return;
    const style = getComputedStyle(originals[index]);
    for (const name of STYLES) {
      const value = style.getPropertyValue(name);
      if (value) setPlain(element, name, value);
    }
  });
  const behind = document.createElementNS(svg.namespaceURI, "rect");
  const [width, height] = ["width", "height"].map((side) => Number(svg.getAttribute(side)) + 2 * MARGIN);
  for (const [name, value] of Object.entries({ x: -MARGIN, y: -MARGIN, width, height })) {
    behind.setAttribute(name, String(value));
  }
  copy.setAttribute("width", String(width));
  copy.setAttribute("height", String(height));
  copy.setAttribute("viewBox", `${-MARGIN} ${-MARGIN} ${width} ${height}`);
  setPlain(behind, "fill", ground);
  copy.querySelector("title").after(behind);
  return new XMLSerializer().serializeToString(copy);
}

/** Hands a text to the browser as a file to save. */
export function download(name, text) {
  const url = URL.createObjectURL(new Blob([text], { type: "image/svg+xml" }));
  const link = document.createElement("a");
  Object.assign(link, { href: url, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

/** Colours as any program reads them: what browsers compute of mixed ones is of CSS alone. */
function setPlain(element, name, value) {
  const mixed = /^color\(srgb ([\d.e-]+) ([\d.e-]+) ([\d.e-]+)(?: \/ ([\d.e-]+))?\)$/.exec(value);
  const whole = /^rgba\((\d+), (\d+), (\d+), ([\d.]+)\)$/.exec(value);
  if (!mixed && !whole) return element.setAttribute(name, value);
  const parts = mixed ? mixed.slice(1, 4).map((part) => Math.round(255 * part)) : whole.slice(1, 4);
  element.setAttribute(name, `rgb(${parts.join(", ")})`);
  const opacity = Number((mixed ?? whole)[4] ?? 1);
  if (opacity < 1) element.setAttribute("style", `${name}-opacity: ${opacity}`);
}
