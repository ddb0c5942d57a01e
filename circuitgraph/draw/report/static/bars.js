// Effects of a sweep over one dimension: bars from zero, with their intervals.

/** Draw one view as bars; all views of a result share one scale. */
function drawBars(result, view, first, room, heading) {
  const columns = result.columns;
  const all = result.views.flatMap((each) => [...each.values, ...each.low, ...each.high]);
  const filled = all.filter((value) => value !== null && value !== undefined);
  const [low, high] = [Math.min(0, ...filled), Math.max(0, ...filled)];
  const pad = 0.06 * (high - low || 1);
  const [left, top, tall] = [46, 8, 190];
  const long = Math.max(...columns.map((text) => text.length));
  const wide = Math.max(9, Math.min(46, (room - left - 4) / columns.length));
  const alone = columns.length === 1;
  const turned = !alone && 6.4 * long + 4 > wide;
  const bottom = turned ? 12 + 6.2 * long : 20;
  const width = left + wide * columns.length + 4;
  const height = top + tall + bottom + (result.column ? 14 : 0);
  const scale = (value) => top + (tall * (high + pad - value)) / (high - low + 2 * pad);
  const svg = draw("svg", {
    viewBox: `0 0 ${width.toFixed(1)} ${height.toFixed(1)}`,
    width: width.toFixed(0),
    height: height.toFixed(0),
    role: "group",
    class: "bars",
    "aria-label": `Bars of ${heading || result.title}. Arrow keys move from bar to bar; the table has all numbers.`,
  });
  for (const value of roundValues(low, high)) {
    const y = scale(value);
    svg.append(draw("line", { x1: left, x2: width, y1: y, y2: y, class: value ? "grid" : "zero" }));
    svg.append(draw("text", { x: left - 5, y: y + 3.5, "text-anchor": "end" }, signed(value, 2)));
  }
  const bars = columns.map((text, at) => {
    const cell = first + at;
    const value = view.values[cell];
    const middle = left + (at + 0.5) * wide;
    const group = draw("g", {
      "data-cell": cell,
      class: "bar",
      role: "img",
      "aria-label": cellLines(result, cell).join("; "),
    });
    group.append(draw("rect", { x: left + at * wide, y: top, width: wide, height: tall, class: "hit" }));
    if (value === null || value === undefined) {
      group.append(draw("text", { x: middle, y: scale(0) + 4, "text-anchor": "middle" }, "×"));
    } else {
      const [y, end] = [scale(Math.max(0, value)), scale(Math.min(0, value))];
      const size = { x: left + (at + 0.15) * wide, y, width: 0.7 * wide, height: Math.max(0.8, end - y) };
      const rect = draw("rect", { ...size, class: "cell" });
      paint(rect, Math.sign(value || 1) * 0.7, 1);
      group.append(rect);
      if (view.low.length && view.low[cell] !== null) {
        const [from, to] = [scale(view.low[cell]), scale(view.high[cell])];
        group.append(draw("path", { d: `M${middle} ${from}V${to}`, class: "whisker" }));
      }
    }
    return group;
  });
  const words = [];
  const step = turned ? every(wide, 11) : 1;
  columns.forEach((text, at) => {
    if (alone || at % step) return;
    const [x, y] = [left + (at + 0.5) * wide, top + tall + 12];
    const turn = turned ? { transform: `rotate(-90 ${x + 3} ${y - 4})`, "text-anchor": "end" } : {};
    const place = turned ? { x: x + 3, y: y - 4 } : { x, y, "text-anchor": "middle" };
    words.push(draw("text", { ...place, ...turn }, text));
  });
  if (result.column) {
    words.push(draw("text", { x: width - 2, y: height - 2, "text-anchor": "end", class: "axis" }, result.column));
  }
  svg.append(...bars, ...words);
  roam(bars);
  return svg;
}

/** Return a handful of round values between two. */
function roundValues(low, high) {
  const span = high - low || 1;
  const rough = span / 5;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].find((factor) => factor * power >= rough) * power;
  const values = [];
  for (let at = Math.ceil(low / step); at * step <= high + 1e-9; at += 1) {
    values.push(Number((at * step).toPrecision(6)));
  }
  return values;
}
