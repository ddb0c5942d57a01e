// Effects as images: layer by head, one per panel and view, white at zero.

/** Everything a cell says when it is pointed at: its number under every name. */
function cellLines(result, cell) {
  const lines = [result.names[cell]];
  for (const view of result.views) {
    const value = view.values[cell];
    if (value === null || value === undefined) {
      if (result.views.length === 1) lines.push("no such request");
      continue;
    }
    const ends = view.low.length ? interval(view.low[cell], view.high[cell]) : "";
    const marked = view.stands.includes(cell) ? (view.difference ? ", differs" : ", stands out") : "";
    lines.push(`${view.name}: ${signed(value)}${ends}${marked}`);
  }
  if (lines.length === 1) lines.push("no such request");
  return lines;
}

/** Mark a cell in all pictures and in the table of its section. */
function link(box, cell) {
  const section = box.closest("section");
  section.querySelectorAll(".linked").forEach((old) => old.classList.remove("linked"));
  if (cell === null) return;
  section.querySelectorAll(`[data-cell="${cell}"]`).forEach((twin) => twin.classList.add("linked"));
}

/** Draw all panels of all views of a result into a box. */
function drawHeatmaps(box, result) {
  const size = result.rows.length * result.columns.length;
  const several = result.panels.length > 1;
  const perRow = result.views.length > 1 ? result.views.length : result.panels.length;
  const fits = Math.max(1, Math.min(perRow, Math.floor(box.clientWidth / 270)));
  const width = Math.floor((box.clientWidth - (fits - 1) * 20) / fits);
  const figures = [];
  result.panels.forEach((title, panel) => {
    const row = result.views.map((view) => {
      const words = [several ? title : "", result.views.length > 1 ? view.name : ""];
      const heading = words.filter(Boolean).join(", ");
      const picture = (result.bars ? drawBars : drawImage)(result, view, panel * size, width, heading);
      return make("figure", {}, ...(heading ? [make("h4", {}, heading)] : []), picture);
    });
    if (result.views.length > 1) figures.push(make("div", { class: "row" }, ...row));
    else figures.push(...row);
  });
  const inside = result.views.length > 1 ? figures : [make("div", { class: "row" }, ...figures)];
  const scales = result.bars ? [] : [drawScales(result)];
  box.replaceChildren(...inside, ...scales);
}

/** Draw one image: rows downwards, columns to the right, dots where a cell stands out. */
function drawImage(result, view, first, room, heading) {
  const [rows, columns] = [result.rows, result.columns];
  const left = 12 + 6.2 * Math.max(...rows.map((words) => words.length));
  const label = 10 + 6.2 * Math.max(...columns.map((text) => text.length));
  // A few columns are made so wide that each has its name below it.
  const most = columns.length <= 8 ? Math.max(34, label) : rows.length > 16 ? 30 : 34;
  const wide = Math.max(7, Math.min(most, (room - left - 4) / columns.length));
  const high = Math.max(9, Math.min(rows.length > 16 ? 15 : 26, wide));
  const top = 16;
  const width = left + columns.length * wide + 2;
  const height = top + rows.length * high + 30;
  const svg = draw("svg", {
    viewBox: `0 0 ${width.toFixed(1)} ${height.toFixed(1)}`,
    width: width.toFixed(0),
    height: height.toFixed(0),
    role: "group",
    class: "image",
    "aria-label": `Heatmap of ${heading || result.title}. Arrow keys move from cell to cell; the table has all numbers.`,
  });
  const stands = new Set(view.stands);
  const cells = [];
  const dots = [];
  for (let at = 0; at < rows.length * columns.length; at += 1) {
    const [row, column] = [Math.floor(at / columns.length), at % columns.length];
    const cell = first + at;
    const value = view.values[cell];
    const [x, y] = [left + column * wide, top + row * high];
    const rect = draw("rect", {
      x: x.toFixed(1),
      y: y.toFixed(1),
      width: (wide - 1).toFixed(1),
      height: (high - 1).toFixed(1),
      class: "cell",
      "data-cell": cell,
      role: "img",
      "aria-label": cellLines(result, cell).join("; "),
    });
    if (value === null || value === undefined) rect.classList.add("none");
    else paint(rect, value, view.limit);
    cells.push(rect);
    if (stands.has(cell)) {
      const dark = Math.abs(value) / view.limit > 0.5 ? "dot strong" : "dot";
      const radius = Math.min(2.6, high / 5);
      dots.push(draw("circle", { cx: x + wide / 2 - 0.5, cy: y + high / 2 - 0.5, r: radius, class: dark }));
    }
  }
  const words = [];
  const rowStep = every(high, 10);
  rows.forEach((text, at) => {
    if (at % rowStep) return;
    const y = top + (at + 0.5) * high + 3;
    words.push(draw("text", { x: left - 5, y, "text-anchor": "end" }, text));
  });
  const columnStep = every(wide, 4 + 6.2 * Math.max(...columns.map((text) => text.length)));
  columns.forEach((text, at) => {
    if (at % columnStep) return;
    const x = left + (at + 0.5) * wide;
    words.push(draw("text", { x, y: height - 18, "text-anchor": "middle" }, text));
  });
  words.push(draw("text", { x: 0, y: 10, class: "axis" }, result.row));
  words.push(draw("text", { x: width - 2, y: height - 4, "text-anchor": "end", class: "axis" }, result.column));
  svg.append(...cells, ...dots, ...words);
  roam(cells, columns.length);
  return svg;
}

/** Draw the colour scales: one for the effects, one for the differences. */
function drawScales(result) {
  const kinds = [result.views[0], result.views.find((view) => view.difference)].filter(Boolean);
  const limit = Math.max(...result.views.filter((view) => !view.difference).map((view) => view.limit));
  const scales = kinds.map((view) => {
    const end = view.difference ? view.limit : limit;
    const svg = draw("svg", { viewBox: "0 0 200 30", width: 200, height: 30, "aria-hidden": "true" });
    for (let at = 0; at < 50; at += 1) {
      const rect = draw("rect", { x: at * 4, y: 0, width: 4.2, height: 12 });
      paint(rect, ((at - 24.5) / 24.5) * end, end);
      svg.append(rect);
    }
    [[0, -end, "start"], [100, 0, "middle"], [200, end, "end"]].forEach(([x, value, anchor]) => {
      svg.append(draw("text", { x, y: 26, "text-anchor": anchor }, signed(value, 2)));
    });
    return make("div", { class: "scale" }, make("span", {}, view.difference ? "difference" : "effect"), svg);
  });
  const marks = [];
  if (result.views.some((view) => view.stands.length)) {
    const share = Number((100 * result.confidence).toFixed(2));
    const apart = result.views.some((view) => view.difference && view.stands.length);
    const also = apart ? "; in a difference: differs by more than chance" : "";
    marks.push(make("span", { class: "small" }, `• stands out from zero (${share} %, corrected)${also}`));
  }
  if (result.views.some((view) => view.values.includes(null))) {
    marks.push(make("span", { class: "small" }, "grey: no such request"));
  }
  return make("div", { class: "scales" }, ...scales, ...marks);
}
