// What is said of the thing that is pointed at or focused, and moving between things by keyboard.

const tip = document.getElementById("tip");
let tipOf = null;

/** Make an HTML element; texts among the children stay text. */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** Show what an element says, beside it; the part before the colon is its name. */
function showTip(element) {
  const words = element.getAttribute("aria-label");
  const [, name, rest] = words.match(/^(.*?): (.*)$/s) ?? [null, words, ""];
  tip.replaceChildren(make("b", {}, name), ...(rest ? [make("span", {}, rest)] : []));
  tip.hidden = false;
  tipOf = element;
  placeTip();
}

/** Put the tip above its element, or below where there is no room. */
function placeTip() {
  const at = tipOf.getBoundingClientRect();
  const own = tip.getBoundingClientRect();
  const room = document.documentElement.clientWidth;
  const left = Math.min(room - own.width - 8, Math.max(8, at.left + at.width / 2 - own.width / 2));
  const above = at.top - own.height - 8;
  tip.style.left = `${left}px`;
  tip.style.top = `${above > 8 ? above : Math.min(at.bottom + 8, innerHeight - own.height - 8)}px`;
}

/** Mark the rows of a section's tables that are of the same name. */
function link(element) {
  document.querySelectorAll("tr.linked").forEach((row) => row.classList.remove("linked"));
  const name = element?.getAttribute("aria-label").split(/: |, /)[0].replace(" → ", " -> ");
  for (const row of element?.closest("section").querySelectorAll("tr[data-name]") ?? []) {
    row.classList.toggle("linked", row.dataset.name === name);
  }
}

/**
 * Let a picture's marks say what they are, by mouse and by keyboard.
 *
 * Titles become labels, so that the browser shows no second tip. One mark at a time can be reached
 * by Tab; arrow keys go to the nearest one in their direction.
 */
function startPicture(svg) {
  const marks = [...svg.querySelectorAll("title")].map((title) => {
    const mark = title.parentElement;
    mark.setAttribute("aria-label", title.textContent);
    if (!mark.hasAttribute("role")) mark.setAttribute("role", "img");
    mark.classList.add("says");
    title.remove();
    return mark;
  });
  marks.forEach((mark, at) => mark.setAttribute("tabindex", at ? "-1" : "0"));
  const enter = (event) => {
    const mark = event.target.closest?.(".says");
    if (!mark) return;
    link(mark);
    showTip(mark);
  };
  const leave = (event) => {
    if (event.relatedTarget?.closest?.(".says")) return;
    link(null);
    tip.hidden = true;
  };
  svg.addEventListener("pointerover", enter);
  svg.addEventListener("pointerout", leave);
  svg.addEventListener("focusin", enter);
  svg.addEventListener("focusout", leave);
  svg.addEventListener("keydown", (event) => {
    const way = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] }[event.key];
    if (!way || !marks.includes(event.target)) return;
    event.preventDefault();
    const next = nearest(event.target, marks, way);
    if (!next) return;
    marks.forEach((mark) => mark.setAttribute("tabindex", mark === next ? "0" : "-1"));
    next.focus();
  });
}

/** Return the mark that is nearest in some direction; what lies aside counts as farther. */
function nearest(from, marks, [x, y]) {
  const middle = (mark) => {
    const at = mark.getBoundingClientRect();
    return [at.left + at.width / 2, at.top + at.height / 2];
  };
  const [left, top] = middle(from);
  let best = null;
  for (const mark of marks) {
    if (mark === from || getComputedStyle(mark).visibility === "hidden") continue;
    const [a, b] = middle(mark);
    const along = (a - left) * x + (b - top) * y;
    const cost = along + 3 * Math.abs((a - left) * y + (b - top) * x);
    if (along > 0.5 && (best === null || cost < best.cost)) best = { cost, mark };
  }
  return best?.mark;
}

addEventListener("keydown", (event) => {
  if (event.key === "Escape") tip.hidden = true;
});
addEventListener("scroll", () => {
  if (tip.hidden) return;
  if (tipOf === document.activeElement) placeTip();
  else tip.hidden = true;
}, { passive: true, capture: true });
