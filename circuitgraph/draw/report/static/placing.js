// Where the nodes of a circuit stand and how its lines run: layers downwards, heads to the right.

const BOX = { head: [44, 22], mlp: [50, 22] };
const MARGIN = { left: 26, right: 8 };
const BAR = 20;
const BOWS = [0, 22, -22, 44, -44, 70, -70, 104, -104, 150, -150];
const GAPS = [34, 24];
const LANES = { q: -0.27, k: 0, v: 0.27, in: 0 };

/**
 * Place the nodes that some edges touch.
 *
 * @returns Boxes by number of the node (middle x, top y, width, height), the height of it all, and
 *   the rows with their layers.
 */
function placeNodes(circuit, edges, width) {
  const used = [...new Set(edges.flatMap((edge) => [edge.from, edge.to]))];
  const ranks = new Map();
  for (const at of used) {
    const node = circuit.nodes[at];
    if (node.layer === undefined) continue;
    const rank = 2 * node.layer + (node.kind === "mlp" ? 1 : 0);
    if (!ranks.has(rank)) ranks.set(rank, []);
    ranks.get(rank).push(at);
  }
  const ordered = [...ranks.keys()].sort((a, b) => a - b);
  const room = width - MARGIN.left - MARGIN.right;
  const mlps = used.some((at) => circuit.nodes[at].kind === "mlp") ? BOX.mlp[0] + 14 : 0;
  const wish = (at) => {
    const node = circuit.nodes[at];
    if (node.kind === "mlp") return MARGIN.left + room - BOX.mlp[0] / 2;
    return MARGIN.left + ((room - mlps) * (node.head + 0.5)) / circuit.heads;
  };
  const gap = GAPS[ordered.length > 16 ? 1 : 0];
  const boxes = new Map();
  const rows = [];
  const find = (kind) => used.find((at) => circuit.nodes[at].kind === kind);
  let y = 4;
  if (find("embed") !== undefined) {
    boxes.set(find("embed"), { x: width / 2, y, width: width - 4, height: BAR, bar: true });
    y += BAR + gap;
  }
  for (const rank of ordered) {
    const members = ranks.get(rank).sort((a, b) => wish(a) - wish(b));
    const step = BOX[rank % 2 ? "mlp" : "head"][0] + 8;
    const most = Math.max(1, Math.floor((room - mlps + 8) / step));
    for (let start = 0; start < members.length; start += most) {
      const row = members.slice(start, start + most);
      spread(row.map(wish), step, MARGIN.left, MARGIN.left + room).forEach((x, at) => {
        const [wide, high] = BOX[circuit.nodes[row[at]].kind];
        boxes.set(row[at], { x, y, width: wide, height: high });
      });
      rows.push({ y: y + BOX.head[1] / 2, layer: Math.floor(rank / 2), first: start === 0 });
      y += BOX.head[1] + gap;
    }
  }
  if (find("logits") !== undefined) {
    boxes.set(find("logits"), { x: width / 2, y, width: width - 4, height: BAR, bar: true });
    y += BAR + gap;
  }
  return { boxes, height: y - gap + 6, rows };
}

/** Move wished places so far apart that boxes do not touch, as little as that takes. */
function spread(wishes, step, left, right) {
  const places = [...wishes];
  for (let at = 1; at < places.length; at += 1) places[at] = Math.max(places[at], places[at - 1] + step);
  let limit = right - (step - 8) / 2;
  for (let at = places.length - 1; at >= 0; at -= 1) {
    places[at] = Math.min(places[at], limit);
    limit = places[at] - step;
  }
  const least = left + (step - 8) / 2;
  return places.map((place, at) => Math.max(place, least + at * step));
}

/** Curves first; where all of them cross a box, lines that step aside. */
const WAYS = [
  ...BOWS.map((bow) => [bow, bend, 0]),
  ...BOWS.slice(1).flatMap((bow) => [bow, 1.4 * bow]).map((bow) => [bow, stepAside, 20]),
];

/** Return the way of every line: the one of several bows and lanes that crosses the fewest boxes. */
function routeEdges(edges, boxes, room) {
  const obstacles = [...boxes.entries()].filter(([, box]) => !box.bar);
  const landed = [];
  return edges.map((edge) => {
    const [from, to] = [boxes.get(edge.from), boxes.get(edge.to)];
    const lane = LANES[edge.port];
    let best = null;
    for (const [bow, shape, dear] of WAYS) {
      if (best !== null && best.cost <= Math.abs(bow) / 8 + dear) continue;
      const way = shape(from, to, lane, bow);
      const crossed = obstacles.filter(([at, box]) => at !== edge.from && at !== edge.to && meets(way, box));
      const near = landed.filter(([x, y]) => Math.abs(x - way.x2) < 9 && y === way.y2 && to.bar).length;
      const out = way.points.filter(([x]) => x < MARGIN.left - 4 || x > room - 4).length;
      const cost = 60 * crossed.length + 14 * near + 5 * out + Math.abs(bow) / 8 + dear;
      if (best === null || cost < best.cost) best = { cost, way };
    }
    landed.push([best.way.x2, best.way.y2]);
    return best.way.d;
  });
}

/** Return a curve from below one box to above another, bowed sideways. */
function bend(from, to, lane, bow) {
  const inside = (box, x) => Math.max(box.x - box.width / 2 + 6, Math.min(box.x + box.width / 2 - 6, x));
  let x1 = from.bar ? 0 : from.x + lane * from.width * 0.6;
  let x2 = to.bar ? 0 : to.x + lane * to.width;
  if (from.bar) x1 = to.bar ? from.x : inside(from, x2 + bow);
  if (to.bar) x2 = from.bar ? to.x : inside(to, x1 + bow);
  const [y1, y2] = [from.y + from.height, to.y - 1];
  const reach = Math.max(12, 0.42 * (y2 - y1));
  const ends = [[x1, y1], [x1, y1 + reach], [x2, y2 - reach], [x2, y2]];
  if (from.bar || to.bar || bow === 0) return { ...curve([ends]), x2, y2 };
  const middle = [(x1 + x2) / 2 + bow, (y1 + y2) / 2];
  const lean = 0.3 * (y2 - y1);
  const first = [[x1, y1], [x1, y1 + lean / 2], [middle[0], middle[1] - lean], middle];
  const second = [middle, [middle[0], middle[1] + lean], [x2, y2 - lean / 2], [x2, y2]];
  return { ...curve([first, second]), x2, y2 };
}

/** Return a line that steps aside in the gap below its box, runs straight, and steps back above the other. */
function stepAside(from, to, lane, bow) {
  const x1 = from.bar ? null : from.x + lane * from.width * 0.6;
  const x2 = to.bar ? null : to.x + lane * to.width;
  const x = (from.bar ? x2 : x1) + bow;
  const [y1, y2] = [from.y + from.height, to.y - 1];
  const gap = Math.min(GAPS[1] - 4, (y2 - y1) / 2);
  const [low, high] = [y1 + gap, y2 - gap];
  const pieces = [];
  if (!from.bar) pieces.push([[x1, y1], [x1, y1 + 0.6 * gap], [x, low - 0.6 * gap], [x, low]]);
  const [top, bottom] = [from.bar ? y1 : low, to.bar ? y2 : high];
  pieces.push([[x, top], [x, top + (bottom - top) / 3], [x, bottom - (bottom - top) / 3], [x, bottom]]);
  if (!to.bar) pieces.push([[x, high], [x, high + 0.6 * gap], [x2, y2 - 0.6 * gap], [x2, y2]]);
  return { ...curve(pieces), x2: to.bar ? x : x2, y2 };
}

/** Return the path of some cubic pieces, and points along it. */
function curve(pieces) {
  const write = ([x, y]) => `${x.toFixed(1)} ${y.toFixed(1)}`;
  const d = pieces.map(([a, ...rest], at) => `${at ? "" : `M${write(a)}`}C${rest.map(write).join(" ")}`).join("");
  const points = pieces.flatMap(([a, b, c, e]) =>
    Array.from({ length: 41 }, (_, at) => {
      const [t, s] = [at / 40, 1 - at / 40];
      const mix = (axis) => s ** 3 * a[axis] + 3 * s * s * t * b[axis] + 3 * s * t * t * c[axis] + t ** 3 * e[axis];
      return [mix(0), mix(1)];
    }),
  );
  return { d, points };
}

function meets(way, box) {
  const [left, right] = [box.x - box.width / 2 - 3, box.x + box.width / 2 + 3];
  return way.points.some(([x, y]) => x > left && x < right && y > box.y - 3 && y < box.y + box.height + 3);
}
