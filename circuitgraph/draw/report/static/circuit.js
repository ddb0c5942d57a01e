// The circuit as a picture that answers: a slider for how many edges, nodes that say what they read.

const MOST_EDGES = 200;
const PORTS = { q: "queries (q)", k: "keys (k)", v: "values (v)", in: "MLPs and the logits" };

/** Draw the circuit into a box, with its slider, its legend and room for details. */
function startCircuit(box) {
  const circuit = data.circuit;
  const total = circuit.edges.length;
  if (!total) {
    box.replaceChildren(make("p", { class: "notice" }, "The circuit has no edges."));
    return;
  }
  const bare = circuit.edges.filter((edge) => edge.weight === undefined).length;
  const most = Math.min(total, MOST_EDGES);
  const state = { count: Math.max(1, Math.min(circuit.shown, most)), chosen: null };
  const slider = make("input", {
    type: "range",
    id: "edges",
    min: Math.max(1, Math.min(bare, most)),
    max: most,
    value: state.count,
    "aria-describedby": "edges-said",
  });
  const said = make("output", { id: "edges-said", for: "edges" });
  const controls = make("div", { class: "controls" }, make("label", { for: "edges" }, "Threshold"), slider, said);
  const stage = make("div", { class: "stage" });
  const details = make("aside", { class: "details", "aria-live": "polite", "aria-label": "What was chosen" });
  const legend = make("ul", { class: "legend" });
  box.replaceChildren(...(bare < most ? [controls] : []), make("div", { class: "circuit" }, stage, details), legend);

  const redraw = () => {
    const edges = circuit.edges.slice(0, state.count);
    said.value = thresholdWords(circuit, state.count);
    slider.setAttribute("aria-valuetext", said.value);
    if (state.chosen !== null && !edges.some((edge) => edge.from === state.chosen || edge.to === state.chosen)) {
      state.chosen = null;
    }
    stage.replaceChildren(drawCircuit(circuit, edges, Math.max(300, stage.clientWidth), choose));
    legend.replaceChildren(...legendItems(circuit, edges));
    mark();
  };
  const choose = (node) => {
    state.chosen = state.chosen === node ? null : node;
    mark();
  };
  const mark = () => {
    const edges = circuit.edges.slice(0, state.count);
    stage.firstChild.classList.toggle("choosing", state.chosen !== null);
    for (const element of stage.querySelectorAll("[data-edge]")) {
      const edge = circuit.edges[element.dataset.edge];
      element.classList.toggle("chosen", edge.from === state.chosen || edge.to === state.chosen);
    }
    for (const element of stage.querySelectorAll("[data-node]")) {
      const own = Number(element.dataset.node) === state.chosen;
      element.classList.toggle("chosen", own);
      element.setAttribute("aria-pressed", String(own));
    }
    details.replaceChildren(...detailsOf(circuit, edges, state.chosen));
  };
  slider.addEventListener("input", () => {
    state.count = Number(slider.value);
    redraw();
  });
  box.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && state.chosen !== null) choose(state.chosen);
  });
  tellOf(stage, "[data-edge], [data-node]", (element) => {
    if (element.dataset.edge) return edgeLines(circuit, circuit.edges[element.dataset.edge]);
    const node = circuit.nodes[element.dataset.node];
    const group = node.group === undefined ? [] : [circuit.groups[node.group].name];
    return [node.name, ...group, "choose it to see what goes in and out"];
  });
  redraw();
  onWidth(stage, redraw);
}

/** Say how many edges are shown and how strong they are at least. */
function thresholdWords(circuit, count) {
  const weakest = circuit.edges[count - 1].weight;
  const total = Math.max(circuit.known, circuit.edges.length);
  const edges = `${count} of ${total.toLocaleString("en")} edge${total === 1 ? "" : "s"}`;
  if (weakest === undefined) return edges;
  return `${edges}: ${circuit.quantity} at least ${signed(Math.abs(weakest), 2)}, either sign`;
}

/** What an edge says when it is pointed at. */
function edgeLines(circuit, edge) {
  if (edge.weight === undefined) return [edge.name, "no weight"];
  return [edge.name, `${circuit.quantity} ${signed(edge.weight)}${interval(edge.low, edge.high)}`, edgeSign(circuit, edge)];
}

function isAgainst(circuit, edge) {
  return circuit.helps < 0 ? edge.weight > 0 : edge.weight < 0;
}

function edgeSign(circuit, edge) {
  if (circuit.helps) return isAgainst(circuit, edge) ? "works against" : "helps";
  return edge.weight < 0 ? "negative" : "positive";
}

/** Return the picture of some edges. */
function drawCircuit(circuit, edges, width, choose) {
  const { boxes, height, rows } = placeNodes(circuit, edges, width);
  const ways = routeEdges(edges, boxes, width);
  const largest = Math.max(...circuit.edges.map((edge) => Math.abs(edge.weight ?? 0)));
  const svg = draw("svg", {
    viewBox: `0 0 ${width} ${height.toFixed(0)}`,
    width,
    height: height.toFixed(0),
    role: "group",
    class: "net",
    "aria-label": `Circuit of ${edges.length} edges. Tab reaches nodes and edges, arrow keys move among them, Enter chooses a node.`,
  });
  svg.append(draw("defs", {}, ...Object.keys(PORTS).flatMap((port) => [arrow(port), bar(port)])));
  for (const row of rows) {
    svg.append(draw("line", { x1: MARGIN.left, x2: width, y1: row.y, y2: row.y, class: "layer" }));
    if (row.first) svg.append(draw("text", { x: 0, y: row.y + 4, class: "axis" }, String(row.layer)));
  }
  const lines = edges.map((edge, at) => {
    const size = largest > 0 ? 0.9 + 4.1 * (Math.abs(edge.weight ?? 0) / largest) : 1.4;
    const head = isAgainst(circuit, edge) ? "bar" : "arrow";
    const group = draw("g", {
      class: `edge port-${edge.port}`,
      "data-edge": circuit.edges.indexOf(edge),
      role: "img",
      "aria-label": edgeLines(circuit, edge).join("; "),
    });
    group.append(draw("path", { d: ways[at], class: "hit" }));
    const style = { "stroke-width": size.toFixed(2), "marker-end": `url(#${head}-${edge.port})` };
    group.append(draw("path", { d: ways[at], class: "line", ...style }));
    return group;
  });
  const nodes = [...boxes.entries()].sort(([a], [b]) => a - b).map(([at, box]) => drawNode(circuit, edges, at, box, choose));
  svg.append(...[...lines].reverse(), ...nodes);
  roam(nodes);
  roam(lines);
  return svg;
}

function drawNode(circuit, edges, at, box, choose) {
  const node = circuit.nodes[at];
  const into = edges.filter((edge) => edge.to === at);
  const out = edges.filter((edge) => edge.from === at).length;
  const tint = node.group === undefined ? "" : ` tint${circuit.groups[node.group].tint}`;
  const group = node.group === undefined ? "" : `, ${circuit.groups[node.group].name}`;
  const element = draw("g", {
    class: `node ${node.kind}${tint}`,
    "data-node": at,
    role: "button",
    "aria-pressed": "false",
    "aria-label": `${node.words}${group}: ${into.length} in, ${out} out`,
  });
  const [left, top] = [box.x - box.width / 2, box.y];
  element.append(draw("rect", { x: left, y: top, width: box.width, height: box.height, rx: box.bar ? 2 : 5 }));
  if (node.kind === "head") {
    for (const port of new Set(into.map((edge) => edge.port))) {
      const x = box.x + LANES[port] * box.width - 5;
      element.append(draw("rect", { x, y: top, width: 10, height: 3.5, class: `strip port-${port}` }));
    }
  }
  const words = draw("text", { x: box.x, y: top + box.height / 2 + 4.5, "text-anchor": "middle" }, node.name);
  element.append(words);
  element.addEventListener("click", () => choose(at));
  element.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    choose(at);
  });
  return element;
}

function arrow(port) {
  const size = { viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 8, markerHeight: 8 };
  const style = { id: `arrow-${port}`, orient: "auto", markerUnits: "userSpaceOnUse", class: `port-${port}` };
  return draw("marker", { ...size, ...style }, draw("path", { d: "M0 0.6L8 4L0 7.4z", class: "tip" }));
}

function bar(port) {
  const size = { viewBox: "0 0 4 12", refX: 2, refY: 6, markerWidth: 4, markerHeight: 12 };
  const style = { id: `bar-${port}`, orient: "auto", markerUnits: "userSpaceOnUse", class: `port-${port}` };
  return draw("marker", { ...size, ...style }, draw("rect", { x: 1, y: 0, width: 2.4, height: 12, class: "tip" }));
}

/** Say what goes into a node and out of it; without one, how to ask. */
function detailsOf(circuit, edges, chosen) {
  if (chosen === null) {
    return [make("p", { class: "small" }, "Point at a line for its effect and interval. Choose a node to see what goes in and out.")];
  }
  const node = circuit.nodes[chosen];
  const group = node.group === undefined ? "" : ` (${circuit.groups[node.group].name})`;
  const list = (title, found) => {
    const items = found.map((edge) => {
      const known = edge.weight === undefined ? "" : `: ${signed(edge.weight)}${interval(edge.low, edge.high)}`;
      return make("li", {}, edge.name + known);
    });
    return [make("h4", {}, `${title}: ${found.length}`), make("ul", {}, ...items)];
  };
  return [
    make("h3", {}, node.name + group),
    ...list("In", edges.filter((edge) => edge.to === chosen)),
    ...list("Out", edges.filter((edge) => edge.from === chosen)),
  ];
}

/** Explain only what the picture has: ports, signs, groups. */
function legendItems(circuit, edges) {
  const sample = (port, head, size) => {
    const svg = draw("svg", { viewBox: "0 0 34 12", width: 34, height: 12, "aria-hidden": "true", class: `net port-${port}` });
    svg.append(draw("path", { d: "M1 6H30", class: "line", "stroke-width": size, "marker-end": `url(#${head}-${port})` }));
    return svg;
  };
  const items = Object.entries(PORTS)
    .filter(([port]) => edges.some((edge) => edge.port === port))
    .map(([port, words]) => {
      const kinds = new Set(edges.filter((edge) => edge.port === port).map((edge) => circuit.nodes[edge.to].kind));
      const only = port === "in" && kinds.size === 1 ? { mlp: "MLPs", logits: "the logits" }[[...kinds][0]] : words;
      return make("li", {}, sample(port, "arrow", 2), `into ${only}`);
    });
  const weighted = edges.filter((edge) => edge.weight !== undefined);
  for (const against of [false, true]) {
    const one = weighted.find((edge) => isAgainst(circuit, edge) === against && edge.weight !== 0);
    if (one) items.push(make("li", {}, sample("in", against ? "bar" : "arrow", 1.5), edgeSign(circuit, one)));
  }
  const largest = Math.max(...circuit.edges.map((edge) => Math.abs(edge.weight ?? 0)));
  if (largest > 0) {
    items.push(make("li", {}, sample("in", "none", 5), `${circuit.quantity} ${signed(largest, 2)}, either sign`));
  }
  for (const [at, group] of circuit.groups.entries()) {
    if (!edges.some((edge) => [edge.from, edge.to].some((end) => circuit.nodes[end].group === at))) continue;
    items.push(make("li", {}, make("span", { class: `swatch tint${group.tint}` }), group.name));
  }
  return items;
}
