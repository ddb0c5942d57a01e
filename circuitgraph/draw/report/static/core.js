// What every other file uses: the data, making elements, writing numbers, painting cells.

const data = JSON.parse(document.getElementById("data").textContent);

/** Make an HTML element; texts among the children stay text. */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

/** Make an SVG element. */
function draw(tag, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

/** Write a number with a true minus sign and so many significant digits. */
function signed(value, digits = 3) {
  if (value === 0) return "0";
  const rounded = Number(value.toPrecision(digits));
  const small = Math.abs(rounded) < 1e-4;
  return (small ? rounded.toExponential() : String(rounded)).replaceAll("-", "−");
}

/** Write an interval, or nothing where there is none. */
function interval(low, high) {
  if (low === null || low === undefined) return "";
  return ` [${signed(low, 2)}, ${signed(high, 2)}]`;
}

/** Where the scale's colours change, as shares of the largest value. */
const STOPS = [0, 0.08, 0.36, 0.7, 1];

/** Paint a cell by its value: the style sheet mixes the colours, so themes and print just work. */
function paint(element, value, limit) {
  const share = Math.min(1, Math.abs(value) / limit);
  let step = 0;
  while (step < 3 && share > STOPS[step + 1]) step += 1;
  const part = (share - STOPS[step]) / (STOPS[step + 1] - STOPS[step]);
  element.classList.add(value < 0 ? "below" : "above", `step${step}`);
  element.style.setProperty("--part", `${(100 * part).toFixed(1)}%`);
}

/** Every how many of them are written, where each needs so much room and has so much. */
function every(room, needed) {
  return [1, 2, 5, 10, 20, 50].find((step) => step * room >= needed) ?? 100;
}

/** Call back when an element gets another width, at most once per frame. */
function onWidth(element, callback) {
  let width = element.clientWidth;
  let asked = 0;
  new ResizeObserver(() => {
    if (element.clientWidth === width || element.clientWidth === 0) return;
    width = element.clientWidth;
    cancelAnimationFrame(asked);
    asked = requestAnimationFrame(callback);
  }).observe(element);
}
