const DATA = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const PAGE_SIZE = 120;  // cards that are drawn at once; more on demand
const SORTS = {
  worst: "worst first", best: "best first", gap: "largest disagreement first", list: "as in the list",
};
const state = { split: null, layer: 0, sort: "worst", label: null, cell: null, image: null, limit: PAGE_SIZE };

const part = () => DATA.splits[state.split];
const rows = () => part().rows;
const counted = () => rows().filter((row) => row.cells);
const rowOfLayer = (key) => counted().filter((row) => row.layer === key)
  .sort((a, b) => DATA.protocols.indexOf(a.key.split("-")[1]) - DATA.protocols.indexOf(b.key.split("-")[1]))[0];
const layerKey = () => part().layers[state.layer].key;

function source(image, key) {
  const name = `${state.split}-${image.file}-${key}.webp`;
  return DATA.inside ? DATA.inside[name] : DATA.folder + name;
}

function picture(image, key, alt) {
  if (image.lacks.includes(key)) {
    const title = part().layers.find((layer) => layer.key === key).title;
    const node = element("div", { className: "lacks", textContent: `no ${title}` });
    node.style.aspectRatio = `${image.size[0]} / ${image.size[1]}`;
    return node;
  }
  return element("img", { src: source(image, key) || "", alt, loading: "lazy", width: image.size[0], height: image.size[1] });
}

function fill(select, options, value) {
  select.replaceChildren(...options.map(([key, text]) => element("option", { value: key, textContent: text })));
  select.value = value;
}

function chips(tags) {
  return tags.map((tag) => {
    const chip = element("span", { className: "chip", textContent: DATA.classes[tag + 1] });
    chip.style.borderColor = DATA.colours[tag + 1];
    return chip;
  });
}

// The mean IoU of an image in the layer's row.
function iouOf(index, key) {
  const row = rowOfLayer(key);
  return row ? row.image_iou[index] : null;
}

function drawChain() {
  const image = part().images[state.image];
  const stages = part().layers.filter((layer) => !layer.key.startsWith("other_"));
  const nodes = stages.flatMap((layer, index) => {
    const row = rowOfLayer(layer.key);
    const stage = element("div", { className: "stage" }, picture(image, layer.key, `${layer.title} of ${image.id}`), layer.title);
    if (row) stage.append(element("b", { textContent: percent(row.miou), title: row.title }));
    return index ? [element("span", { className: "arrow", textContent: "→", ariaHidden: "true" }), stage] : [stage];
  });
  $("chain").replaceChildren(...nodes);
}

function drawCharts() {
  const row = rows().find((one) => one.key === $("row").value);
  const other = rows().find((one) => one.key === $("row2").value);
  const figures = [];
  const legend = (list) => list.map((one, index) => [one.title, SERIES[index % SERIES.length]]);
  if (row) {
    const both = other ? [row, other] : [row];
    figures.push(figure("IoU of each class", "A click on a class filters the images below.",
      barChart(DATA.classes, row.iou, other && other.iou, (label) => filterClass(label)), legend(both)));
  }
  if (row && row.confusion) {
    figures.push(figure(`Confusion: ${row.title}`, "Rows: truth; columns: prediction; percent of a class's pixels. A click shows the images behind a cell.",
      matrixChart(DATA.classes, row.confusion, filterCell)));
  }
  const curves = rows().filter((one) => one.curve.length && !one.best);
  if (curves.length) {
    figures.push(figure("Threshold of the background", "Mean IoU where a pixel is foreground if its largest class score is above the threshold.",
      lineChart(curves.map((one) => ({ name: one.title, points: one.curve.map((value, i) => [i / 100, value || 0]) })), { xLabel: "threshold", yLabel: "mIoU, %" }), legend(curves)));
    const reliable = curves.map((one) => ({ name: one.title, points: one.reliability.map(([pixels, hits], i) => [(i + 0.5) / one.reliability.length, pixels ? hits / pixels : null, `${pixels} pixels`]).filter((point) => point[1] !== null) }));
    figures.push(figure("Reliability", "Share of pixels whose class is true, by their largest class score. On the diagonal a score is a probability.",
      lineChart(reliable, { xLabel: "class score", yLabel: "correct, %", diagonal: true }), legend(curves)));
  }
  const sized = counted();
  if (sized.length) {
    const bounds = [0, ...DATA.sizes, 1].map((value) => `${(100 * value).toFixed(0)}`);
    const ticks = bounds.slice(1).map((end, i) => [(i + 0.5) / (bounds.length - 1), `${bounds[i]}–${end} %`]);
    figures.push(figure("Size of objects", "Mean IoU of a class in an image, by its share of the image's pixels.",
      lineChart(sized.map((one) => ({ name: one.title, points: one.sizes.map((group, i) => [ticks[i][0], group.iou, `${percent(group.iou)}, ${group.objects} objects`]).filter((point) => point[1] !== null) })), { xLabel: "share of the image", yLabel: "IoU, %", ticks }), legend(sized)));
  }
  $("charts").replaceChildren(...figures);
}

function drawDifferences() {
  const pairs = (DATA.against || []).filter((pair) => pair.split === state.split);
  $("against").hidden = !pairs.length;
  if (!pairs.length) return;
  $("against-title").textContent = `${DATA.run} against ${DATA.other}`;
  const select = $("pair");
  if (!select.options.length || select.dataset.split !== state.split) {
    fill(select, pairs.map((pair, index) => [index, pair.title]), pairs.length - 1);
    select.dataset.split = state.split;
  }
  const pair = pairs[select.value];
  const names = ["mean", ...DATA.classes];
  $("differences").replaceChildren(figure(`${pair.title}: ${percent(pair.miou[0])} and ${percent(pair.miou[1])}`, "Blue: better; red: worse; grey: the interval holds zero.",
    differenceChart(pair.differences.map((difference, index) => [names[index], difference]))));
}

function cellCount(index) {
  const row = rows().find((one) => one.key === state.cell.row);
  const wanted = state.cell.truth * DATA.classes.length + state.cell.predicted;
  const cells = row.cells[index];
  for (let i = 0; i < cells.length; i += 2) if (cells[i] === wanted) return cells[i + 1];
  return 0;
}

function gap(index) {
  const ious = counted().filter((row) => row.layer && row.image_iou[index] !== null).map((row) => row.image_iou[index]);
  return ious.length ? Math.max(...ious) - Math.min(...ious) : 0;
}

function chosen() {
  let indices = part().images.map((_, index) => index);
  if (state.label !== null) indices = indices.filter((index) => part().images[index].tags.includes(state.label - 1));
  if (state.cell) return indices.filter((index) => cellCount(index) > 0).sort((a, b) => cellCount(b) - cellCount(a));
  const iou = (index) => {
    const own = iouOf(index, layerKey());
    const row = counted().filter((one) => one.layer).at(-1);
    return own ?? (row ? row.image_iou[index] : null);
  };
  if (state.sort === "worst") indices.sort((a, b) => (iou(a) ?? 2) - (iou(b) ?? 2));
  if (state.sort === "best") indices.sort((a, b) => (iou(b) ?? -1) - (iou(a) ?? -1));
  if (state.sort === "gap") indices.sort((a, b) => gap(b) - gap(a));
  return indices;
}

function card(index) {
  const image = part().images[index], key = layerKey(), iou = iouOf(index, key);
  const name = element("span", { className: "name", textContent: image.id, title: image.id });
  const score = element("span", { textContent: iou === null ? "" : `IoU ${percent(iou)}` });
  const node = element("button", { type: "button", className: "card" }, picture(image, key, `${part().layers[state.layer].title} of ${image.id}`),
    element("div", { className: "line" }, name, score), element("div", {}, ...chips(image.tags)));
  node.dataset.index = index;
  node.addEventListener("click", () => open(index));
  return node;
}

function drawGallery() {
  const layer = part().layers[state.layer], indices = chosen();
  $("layer-name").textContent = layer.title;
  const shown = indices.slice(0, state.limit);
  $("gallery").replaceChildren(...shown.map(card));
  const total = part().total > part().images.length ? `, shown of ${part().total} in the split` : "";
  $("count").textContent = `${indices.length} images${total}`;
  $("more").hidden = indices.length <= state.limit;
  $("cell").replaceChildren();
  if (state.cell) {
    const text = `${DATA.classes[state.cell.truth]} taken for ${DATA.classes[state.cell.predicted]}`;
    const clear = element("button", { type: "button", textContent: "show all" });
    clear.addEventListener("click", () => { state.cell = null; drawGallery(); });
    $("cell").append(text, clear);
  }
}

// Only pictures and IoU change with the layer: the order stays, so that the eye can compare.
function switchLayer(layer) {
  state.layer = Math.max(0, Math.min(part().layers.length - 1, layer));
  $("layer").value = state.layer;
  $("layer-name").textContent = part().layers[state.layer].title;
  for (const node of $("gallery").children) node.replaceWith(card(Number(node.dataset.index)));
}

function open(index) {
  state.image = index;
  const image = part().images[index];
  $("viewer-title").replaceChildren(image.id + " ", ...chips(image.tags));
  $("viewer-layers").replaceChildren(...part().layers.map((layer) => {
    const iou = iouOf(index, layer.key);
    return element("div", {}, picture(image, layer.key, layer.title), layer.title + (iou === null ? "" : `: IoU ${percent(iou)}`));
  }));
  if (!$("viewer").open) $("viewer").showModal();
  drawChain();
}

function filterClass(label) {
  state.label = label;
  $("class").value = label ?? "";
  state.limit = PAGE_SIZE;
  drawGallery();
}

function filterCell(truth, predicted) {
  state.cell = { row: $("row").value, truth, predicted };
  state.limit = PAGE_SIZE;
  const layer = rows().find((row) => row.key === state.cell.row).layer;
  const position = part().layers.findIndex((one) => one.key === layer);
  if (position >= 0) { state.layer = position; $("layer").value = position; }
  drawGallery();
  $("bar").scrollIntoView({ behavior: "smooth" });
}

function show(split) {
  Object.assign(state, { split, cell: null, limit: PAGE_SIZE, image: 0 });
  for (const button of $("splits").querySelectorAll("button")) button.setAttribute("aria-pressed", button.textContent === split);
  const keys = part().layers.map((layer) => layer.key);
  state.layer = Math.max(0, keys.lastIndexOf("prediction"), keys.lastIndexOf("mask"));
  Object.assign($("layer"), { max: keys.length - 1, value: state.layer });
  const options = rows().filter((row) => row.cells).map((row) => [row.key, row.title]);
  fill($("row"), options, options.length ? options.at(-1)[0] : "");
  fill($("row2"), [["", "nothing"], ...options], options.length > 1 ? options.at(-2)[0] : "");
  for (const id of ["charts-title"]) $(id).parentElement.hidden = !options.length;
  drawChain();
  drawCharts();
  drawDifferences();
  drawGallery();
}

document.title = `${DATA.run}: results`;
$("title").textContent = DATA.run;
$("splits").append(...Object.keys(DATA.splits).map((split) => {
  const button = element("button", { type: "button", textContent: split });
  button.addEventListener("click", () => show(split));
  return button;
}));
const hasScores = Object.values(DATA.splits).some((split) => split.rows.length > 0);
if (!hasScores) {
  state.sort = "list";  // the other orders compare with the truth
  for (const node of document.querySelectorAll(".scored")) node.hidden = true;
}
fill($("sort"), Object.entries(SORTS).filter(([key]) => hasScores || key === "list"), state.sort);
fill($("class"), [["", "all"], ...DATA.classes.slice(1).map((name, index) => [index + 1, name])], "");
$("sort").addEventListener("change", () => { state.sort = $("sort").value; drawGallery(); });
$("class").addEventListener("change", () => filterClass($("class").value === "" ? null : Number($("class").value)));
$("layer").addEventListener("input", () => switchLayer(Number($("layer").value)));
$("row").addEventListener("change", drawCharts);
$("row2").addEventListener("change", drawCharts);
$("pair").addEventListener("change", drawDifferences);
$("more").addEventListener("click", () => { state.limit += PAGE_SIZE; drawGallery(); });
document.addEventListener("keydown", (event) => {
  if (event.target.matches("select, input") || event.ctrlKey || event.metaKey || event.altKey) return;
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (!step) return;
  event.preventDefault();
  if ($("viewer").open) {
    const order = [...$("gallery").children].map((node) => Number(node.dataset.index));
    open(order[(order.indexOf(state.image) + step + order.length) % order.length]);
  } else switchLayer(state.layer + step);
});
show(Object.keys(DATA.splits).at(-1));
