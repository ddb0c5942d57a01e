// The circuit's picture answers: a slider for how many lines, boxes that say what they read.

/** Let a threshold hide lines, and a chosen box show what goes in and out. */
function startCircuit(box) {
  const lines = [...box.querySelectorAll("[data-line]")];
  const boxes = [...box.querySelectorAll("[data-box]")];
  const size = (line) => Number(line.dataset.size);
  lines.sort((a, b) => size(b) - size(a));
  const slider = document.getElementById("edges");
  const said = document.getElementById("edges-said");
  const details = box.querySelector(".details");
  let chosen = null;

  const shown = () => lines.filter((line) => !line.classList.contains("off"));
  const touches = (line, at) => line.dataset.from === at || line.dataset.to === at;

  const mark = () => {
    const seen = shown();
    box.classList.toggle("choosing", chosen !== null);
    for (const line of lines) line.classList.toggle("chosen", touches(line, chosen));
    for (const node of boxes) {
      const at = node.dataset.box;
      node.classList.toggle("off", !seen.some((line) => touches(line, at)));
      node.classList.toggle("chosen", at === chosen);
      node.setAttribute("aria-pressed", String(at === chosen));
    }
    const asked = boxes.find((node) => node.dataset.box === chosen);
    details.replaceChildren(...(asked ? detailsOf(asked, seen, chosen) : []));
    details.hidden = !asked;
  };
  const cut = () => {
    const count = Number(slider.value);
    lines.forEach((line, at) => line.classList.toggle("off", at >= count));
    const least = lines[count - 1].dataset.size;
    said.value = `${count} of ${lines.length}: at least ${least}, either sign`;
    slider.setAttribute("aria-valuetext", said.value);
    if (!shown().some((line) => touches(line, chosen))) chosen = null;
    mark();
  };
  const choose = (at) => {
    chosen = chosen === at ? null : at;
    mark();
  };
  for (const node of boxes) {
    node.setAttribute("role", "button");
    node.addEventListener("click", () => choose(node.dataset.box));
    node.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      choose(node.dataset.box);
    });
  }
  box.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && chosen !== null) choose(chosen);
  });
  slider.addEventListener("input", cut);
  slider.parentElement.hidden = lines.length < 2 || size(lines[0]) === 0;
  mark();
}

/** Say what goes into a box and out of it. */
function detailsOf(node, lines, at) {
  const list = (title, found) => {
    const items = found.map((line) => make("li", {}, line.getAttribute("aria-label")));
    return [make("h4", {}, `${title}: ${found.length}`), make("ul", {}, ...items)];
  };
  return [
    make("h3", {}, node.getAttribute("aria-label")),
    ...list("In", lines.filter((line) => line.dataset.to === at)),
    ...list("Out", lines.filter((line) => line.dataset.from === at)),
  ];
}
