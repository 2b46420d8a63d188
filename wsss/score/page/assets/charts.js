"use strict";
// Charts as inline SVG. Texts are set as text, never as markup: names come from a user's files.

const SERIES = ["#0077bb", "#ee7733", "#009988", "#cc3311", "#aa4499", "#332288", "#117733", "#ee3377", "#33bbee", "#997700"];

function svg(tag, attributes = {}, text = "") {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text !== "") node.textContent = text;
  return node;
}

function element(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

function percent(share) {
  return share === null || share === undefined ? "–" : (100 * share).toFixed(1);
}

function figure(title, note, chart, legend = []) {
  const items = legend.map(([name, colour]) => {
    const mark = element("i");
    mark.style.background = colour;
    return element("span", {}, mark, name);
  });
  const parts = [element("h3", { textContent: title }), element("p", { className: "note", textContent: note })];
  if (items.length) parts.push(element("div", { className: "legend" }, ...items));
  return element("figure", {}, ...parts, chart);
}

// Lines of shares over x in [0, 1]. series: [{name, points: [[x, y]]}].
function lineChart(series, { xLabel, yLabel, diagonal = false, ticks = null }) {
  const [width, height, left, bottom, top, right] = [460, 260, 44, 36, 10, 12];
  const highest = diagonal ? 1 : Math.min(1, Math.ceil(10 * Math.max(0.1, ...series.flatMap((s) => s.points.map((p) => p[1])))) / 10);
  const x = (value) => left + value * (width - left - right);
  const y = (value) => height - bottom - (value / highest) * (height - bottom - top);
  const chart = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${yLabel} over ${xLabel}` });
  for (let step = 0; step <= 5; step++) {
    const share = (highest * step) / 5;
    chart.append(svg("line", { x1: left, x2: width - right, y1: y(share), y2: y(share), class: "grid" }));
    chart.append(svg("text", { x: left - 6, y: y(share) + 4, "text-anchor": "end" }, (100 * share).toFixed(0)));
  }
  const marks = ticks || [0, 0.2, 0.4, 0.6, 0.8, 1].map((value) => [value, String(value)]);
  for (const [value, text] of marks) {
    chart.append(svg("text", { x: x(value), y: height - bottom + 15, "text-anchor": "middle" }, text));
  }
  chart.append(svg("line", { x1: left, x2: width - right, y1: y(0), y2: y(0), class: "axis" }));
  chart.append(svg("text", { x: (left + width - right) / 2, y: height - 4, "text-anchor": "middle" }, xLabel));
  chart.append(svg("text", { x: 12, y: (height - bottom) / 2, "text-anchor": "middle", transform: `rotate(-90 12 ${(height - bottom) / 2})` }, yLabel));
  if (diagonal) chart.append(svg("line", { x1: x(0), y1: y(0), x2: x(1), y2: y(1), stroke: "#9aa6b2", "stroke-dasharray": "4 4" }));
  series.forEach((one, index) => {
    const colour = SERIES[index % SERIES.length];
    const path = one.points.map(([a, b], i) => `${i ? "L" : "M"}${x(a).toFixed(1)},${y(b).toFixed(1)}`).join("");
    chart.append(svg("path", { d: path, fill: "none", stroke: colour, "stroke-width": 2 }));
    if (one.points.length > 30) return;
    for (const [a, b, note] of one.points) {
      const dot = svg("circle", { cx: x(a), cy: y(b), r: 3, fill: colour });
      dot.append(svg("title", {}, `${one.name}: ${note || `${a.toFixed(2)}, ${percent(b)}`}`));
      chart.append(dot);
    }
  });
  return chart;
}

// Horizontal bars of shares, two per label. values, others: [share or null].
function barChart(names, values, others, onClick) {
  const [left, line, width] = [110, others ? 26 : 18, 460];
  const height = names.length * line + 24;
  const x = (share) => left + share * (width - left - 44);
  const chart = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "IoU of each class" });
  for (let step = 0; step <= 4; step++) {
    chart.append(svg("line", { x1: x(step / 4), x2: x(step / 4), y1: 0, y2: height - 20, class: "grid" }));
    chart.append(svg("text", { x: x(step / 4), y: height - 6, "text-anchor": "middle" }, String(25 * step)));
  }
  names.forEach((name, index) => {
    const top = index * line + 3;
    const label = svg("text", { x: left - 6, y: top + line / 2, "text-anchor": "end", class: index ? "hit" : "" }, name.length > 17 ? name.slice(0, 16) + "…" : name);
    label.append(svg("title", {}, name));
    if (index) label.addEventListener("click", () => onClick(index));
    chart.append(label);
    [values, others].forEach((list, which) => {
      if (!list || list[index] === null) return;
      const bar = svg("rect", { x: left, y: top + which * 11, width: Math.max(0, x(list[index]) - left), height: 10, fill: SERIES[which], rx: 2 });
      bar.append(svg("title", {}, `${name}: ${percent(list[index])}`));
      chart.append(bar, svg("text", { x: x(list[index]) + 4, y: top + which * 11 + 9 }, percent(list[index])));
    });
  });
  return chart;
}

// Confusion matrix; each row sums to 100. onClick(true label, predicted label).
function matrixChart(names, counts, onClick) {
  const many = names.length > 24;
  const [cell, left, top] = [many ? 9 : Math.max(18, Math.min(34, 340 / names.length)), many ? 76 : 92, many ? 70 : 84];
  const side = names.length * cell;
  const chart = svg("svg", { viewBox: `0 0 ${left + side + 8} ${top + side + 8}`, role: "group", "aria-label": "Confusion matrix" });
  const size = many ? 7 : 10;
  names.forEach((name, index) => {
    const short = name.length > 14 ? name.slice(0, 13) + "…" : name;
    const middle = (index + 0.5) * cell;
    chart.append(svg("text", { x: left - 4, y: top + middle + size / 3, "text-anchor": "end", style: `font-size:${size}px` }, short));
    chart.append(svg("text", { x: left + middle, y: top - 4, transform: `rotate(-60 ${left + middle} ${top - 4})`, style: `font-size:${size}px` }, short));
  });
  counts.forEach((row, truth) => {
    const total = row.reduce((sum, value) => sum + value, 0);
    row.forEach((count, predicted) => {
      const share = total ? count / total : 0;
      const box = svg("rect", {
        x: left + predicted * cell, y: top + truth * cell, width: cell - 1, height: cell - 1, class: "hit", tabindex: many ? -1 : 0,
        fill: truth === predicted ? `rgba(0,119,187,${0.06 + 0.94 * share})` : `rgba(204,51,17,${0.03 + 0.97 * Math.min(1, 2 * share)})`,
        "data-truth": truth, "data-predicted": predicted,
      });
      box.append(svg("title", {}, `${names[truth]} taken for ${names[predicted]}: ${percent(share)} % of its pixels`));
      const choose = () => onClick(truth, predicted);
      box.addEventListener("click", choose);
      box.addEventListener("keydown", (event) => { if (event.key === "Enter") choose(); });
      chart.append(box);
      if (!many && share >= 0.005) {
        const dark = share > (truth === predicted ? 0.5 : 0.3);
        chart.append(svg("text", { x: left + (predicted + 0.5) * cell, y: top + (truth + 0.5) * cell + 4, "text-anchor": "middle", "pointer-events": "none", style: `font-size:10px;fill:${dark ? "#fff" : "#1b2530"}` }, (100 * share).toFixed(0)));
      }
    });
  });
  return chart;
}

// Differences with intervals. rows: [[name, [value, low, high] or null]].
function differenceChart(rows) {
  const [left, line, width] = [130, 20, 560];
  const ends = rows.flatMap(([, d]) => d || []);
  const reach = Math.max(0.02, ...ends.map(Math.abs)) * 1.05;
  const x = (value) => left + ((value + reach) / (2 * reach)) * (width - left - 60);
  const height = rows.length * line + 26;
  const chart = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "Difference of the IoU of each class" });
  for (const share of [-reach, -reach / 2, 0, reach / 2, reach]) {
    chart.append(svg("line", { x1: x(share), x2: x(share), y1: 0, y2: height - 20, class: share ? "grid" : "axis" }));
    chart.append(svg("text", { x: x(share), y: height - 6, "text-anchor": "middle" }, (100 * share).toFixed(1)));
  }
  rows.forEach(([name, difference], index) => {
    const middle = index * line + line / 2;
    chart.append(svg("text", { x: left - 6, y: middle + 4, "text-anchor": "end", style: index ? "" : "font-weight:700" }, name));
    if (!difference) return;
    const [value, low, high] = difference;
    const colour = low > 0 ? SERIES[0] : high < 0 ? SERIES[3] : "#7a8793";
    chart.append(svg("line", { x1: x(low), x2: x(high), y1: middle, y2: middle, stroke: colour, "stroke-width": 3 }));
    chart.append(svg("circle", { cx: x(value), cy: middle, r: 5, fill: colour }));
    chart.append(svg("text", { x: width - 54, y: middle + 4 }, `${value > 0 ? "+" : ""}${(100 * value).toFixed(1)}`));
  });
  return chart;
}
