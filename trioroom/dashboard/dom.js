// Elements, and what they say. All text is set as text: the names of rooms are anybody's.

const SVG = "http://www.w3.org/2000/svg";

export function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

export function shape(name, className) {
  const made = document.createElementNS(SVG, name);
  made.setAttribute("class", className);
  return made;
}

// Only where it changes, so that what is selected stays so.
export function setText(target, text) {
  if (target.textContent !== text) target.textContent = text;
}
