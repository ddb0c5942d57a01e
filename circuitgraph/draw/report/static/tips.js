// What is said of the thing that is pointed at or focused, and moving between things by keyboard.

const tip = document.getElementById("tip");
let tipOf = null;

/** Show lines of text beside an element; the first line is the name. */
function showTip(lines, element) {
  tip.replaceChildren(...lines.map((line, at) => make(at ? "span" : "b", {}, line)));
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
  tip.style.top = `${above > 8 ? above : at.bottom + 8}px`;
}

function hideTip() {
  tip.hidden = true;
}

/**
 * Say something about each of some elements while it is pointed at or focused.
 *
 * @param {Element} box What holds them.
 * @param {string} selector Which of its descendants they are.
 * @param {(element: Element) => string[] | null} describe What to say, line by line.
 * @param {(element: Element | null) => void} mark Called with what is pointed at, null for nothing.
 */
function tellOf(box, selector, describe, mark = () => {}) {
  const enter = (event) => {
    const element = event.target.closest?.(selector);
    if (!element || !box.contains(element)) return;
    mark(element);
    const lines = describe(element);
    if (lines) showTip(lines, element);
  };
  const leave = (event) => {
    if (event.relatedTarget?.closest?.(selector)) return;
    mark(null);
    hideTip();
  };
  box.addEventListener("pointerover", enter);
  box.addEventListener("pointerout", leave);
  box.addEventListener("focusin", enter);
  box.addEventListener("focusout", leave);
}

/**
 * Let arrow keys move between elements, of which one at a time can be reached by Tab.
 *
 * @param {Element[]} items The elements, row by row.
 * @param {number} columns How many stand in a row; 1 makes all four arrows go to the next or last.
 */
function roam(items, columns = 1) {
  if (!items.length) return;
  items.forEach((item, at) => item.setAttribute("tabindex", at ? "-1" : "0"));
  const move = (from, to) => {
    if (to < 0 || to >= items.length || to === from) return;
    items[from].setAttribute("tabindex", "-1");
    items[to].setAttribute("tabindex", "0");
    items[to].focus();
  };
  items.forEach((item, at) => {
    item.addEventListener("keydown", (event) => {
      const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns };
      const places = { Home: 0, End: items.length - 1 };
      if (event.key in steps) move(at, at + steps[event.key]);
      else if (event.key in places) move(at, places[event.key]);
      else return;
      event.preventDefault();
    });
    item.addEventListener("focus", () => {
      for (const other of items) other.setAttribute("tabindex", other === item ? "0" : "-1");
    });
  });
}

window.addEventListener("keydown", (event) => {
  if (event.key === "Escape") hideTip();
});
// Moving by keyboard scrolls the page: then the tip goes along.
const onScroll = () => {
  if (tip.hidden) return;
  if (tipOf === document.activeElement) placeTip();
  else hideTip();
};
window.addEventListener("scroll", onScroll, { passive: true });
