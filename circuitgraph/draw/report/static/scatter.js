// One variant against the other: a point per cell, equal ones on the line.

const NAMED = 8;

/** Draw another view of a result against the first; the box says which. */
function drawScatter(box, result) {
  const [one, other] = [result.views[0], result.views[Number(box.dataset.other)]];
  const cells = one.values
    .map((value, cell) => ({ cell, x: value, y: other.values[cell] }))
    .filter((point) => typeof point.x === "number" && typeof point.y === "number");
  const ends = cells.flatMap((point) => [point.x, point.y]);
  const [least, most] = [Math.min(0, ...ends), Math.max(0, ...ends)];
  const pad = 0.07 * (most - least || 1);
  const [low, high] = [least - pad, most + pad];
  const [left, top] = [48, 8];
  const side = Math.max(200, Math.min(460, box.clientWidth - left - 12));
  const width = left + side + 8;
  const height = top + side + 40;
  const across = (value) => left + (side * (value - low)) / (high - low);
  const up = (value) => top + (side * (high - value)) / (high - low);
  const heading = `${other.name} against ${one.name}`;
  const svg = draw("svg", {
    viewBox: `0 0 ${width} ${height}`,
    width,
    height,
    role: "group",
    class: "plot",
    "aria-label": `Scatter plot, ${heading}. Arrow keys move from point to point, the most different first.`,
  });
  for (const value of roundValues(least, most)) {
    const kind = value ? "grid" : "zero";
    const [x, y] = [across(value), up(value)];
    svg.append(draw("line", { x1: x, x2: x, y1: top, y2: top + side, class: kind }));
    svg.append(draw("line", { x1: left, x2: left + side, y1: y, y2: y, class: kind }));
    svg.append(draw("text", { x, y: top + side + 14, "text-anchor": "middle" }, signed(value, 2)));
    svg.append(draw("text", { x: left - 5, y: y + 3.5, "text-anchor": "end" }, signed(value, 2)));
  }
  const diagonal = { x1: across(low), y1: up(low), x2: across(high), y2: up(high) };
  svg.append(draw("line", { ...diagonal, class: "diagonal" }));
  const ranked = [...cells].sort((a, b) => Math.abs(b.x - b.y) - Math.abs(a.x - a.y));
  const named = ranked.slice(0, NAMED).filter((point) => point.x !== point.y);
  const points = ranked.map((point) => {
    const marked = named.includes(point);
    const [x, y] = [across(point.x), up(point.y)];
    const mark = marked
      ? draw("path", { d: `M${x} ${y - 5}l5 5l-5 5l-5-5z` })
      : draw("circle", { cx: x, cy: y, r: 3.6 });
    mark.setAttribute("class", marked ? "point named" : "point");
    mark.dataset.cell = point.cell;
    mark.setAttribute("role", "img");
    mark.setAttribute("aria-label", cellLines(result, point.cell).join("; "));
    return mark;
  });
  const spots = cells.map((point) => [across(point.x), up(point.y)]);
  const labels = placeNames(named.map((point) => [across(point.x), up(point.y), result.names[point.cell]]), spots, {
    left,
    top,
    right: left + side,
    bottom: top + side,
  });
  svg.append(...[...points].reverse(), ...labels);
  svg.append(draw("text", { x: left + side, y: height - 6, "text-anchor": "end", class: "axis" }, `${one.name} →`));
  svg.append(draw("text", { x: 12, y: top, transform: `rotate(-90 12 ${top})`, "text-anchor": "end", class: "axis" }, `${other.name} →`));
  const words = `On the dashed line both agree. Diamonds: the ${named.length} cells that differ most.`;
  box.replaceChildren(make("figure", {}, make("h4", {}, heading), svg, make("figcaption", { class: "small" }, words)));
  roam(points);
}

/** Return names beside their points, where they cover neither points nor each other. */
function placeNames(wanted, spots, frame) {
  const taken = [];
  return wanted.map(([x, y, text]) => {
    const wide = 6.4 * text.length;
    let best = null;
    for (const far of [9, 16, 26, 38]) {
      for (const turn of [0, 40, -40, 90, -90, 140, -140, 180]) {
        const angle = (turn * Math.PI) / 180;
        const middle = [x + Math.cos(angle) * (far + wide / 2), y + Math.sin(angle) * far];
        const own = [middle[0] - wide / 2, middle[1] - 6, middle[0] + wide / 2, middle[1] + 6];
        const outside = own[0] < frame.left || own[2] > frame.right || own[1] < frame.top || own[3] > frame.bottom;
        const hits = taken.filter((box) => own[0] < box[2] && own[2] > box[0] && own[1] < box[3] && own[3] > box[1]);
        const covered = spots.filter(([a, b]) => a > own[0] - 3 && a < own[2] + 3 && b > own[1] - 3 && b < own[3] + 3);
        const cost = 100 * hits.length + 30 * covered.length + far + (outside ? 1000 : 0);
        if (best === null || cost < best.cost) best = { cost, own, middle };
      }
    }
    taken.push(best.own);
    const [left, right] = [best.own[0], best.own[2]];
    const toward = Math.max(left, Math.min(right, x));
    const line = draw("line", { x1: x, y1: y, x2: toward, y2: best.middle[1], class: "leader" });
    const name = draw("text", { x: best.middle[0], y: best.middle[1] + 4, "text-anchor": "middle", class: "name" }, text);
    return draw("g", { "pointer-events": "none" }, line, name);
  });
}
