// Photos and masks side by side. All texts enter the page as text, never as HTML.
const DATA = JSON.parse(document.getElementById("data").textContent);
const STEP = 120; // cards that are added at once
const SORTS = { doubt: "most doubtful first", name: "by name", unsure: "most unsure first", small: "smallest share first" };
const $ = (id) => document.getElementById(id);
const state = { order: [], shown: 0, open: -1, mask: true };

function element(name, properties = {}, ...children) {
  const node = Object.assign(document.createElement(name), properties);
  node.append(...children);
  return node;
}

const percent = (share) => (share > 0 && share < 0.001 ? "< 0.1 %" : `${(100 * share).toFixed(1)} %`);

function chip(label, text = DATA.classes[label]) {
  const node = element("span", { className: "chip", textContent: text });
  node.style.borderColor = DATA.colours[label];
  return node;
}

const flag = ([label, text]) => element("span", { className: "flag", textContent: `${DATA.classes[label]}: ${text}` });

// The label below the pointer, from the coarse grid: a page of files cannot read pixels.
function labelAt(photo, x, y) {
  const [columns, rows] = photo.grid;
  const column = Math.min(columns - 1, Math.max(0, Math.floor(x * columns)));
  const row = Math.min(rows - 1, Math.max(0, Math.floor(y * rows)));
  let left = row * columns + column;
  for (let i = 0; i < photo.runs.length; i += 2) {
    left -= photo.runs[i + 1];
    if (left < 0) return photo.runs[i];
  }
  return 0;
}

function hover(photo, event) {
  const box = event.currentTarget.getBoundingClientRect();
  const label = labelAt(photo, (event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
  $("hover").textContent = DATA.classes[label];
  $("hover").style.left = `${Math.min(event.clientX + 14, innerWidth - 140)}px`;
  $("hover").style.top = `${event.clientY + 14}px`;
  place().append($("hover"));
  $("hover").hidden = false;
}

// An open dialog lies above everything that is not in it.
const place = () => ($("viewer").open ? $("viewer") : document.body);

function frame(photo, withMask, width) {
  const node = element("span", { className: "photo" });
  node.style.aspectRatio = `${photo.size[0]} / ${photo.size[1]}`;
  // On a card no photo is higher than 24rem: very long ones would fill the page.
  node.style.width = width ? `${width}px` : `min(100%, ${24 * photo.size[0] / photo.size[1]}rem)`;
  const image = element("img", { src: photo.small, alt: withMask ? `mask of ${photo.id}` : photo.id, loading: "lazy", decoding: "async" });
  node.append(image);
  if (withMask) {
    node.append(element("img", { src: photo.smallMask, alt: "", className: "mask", loading: "lazy", decoding: "async" }));
    node.addEventListener("mousemove", (event) => hover(photo, event));
    node.addEventListener("mouseleave", () => { $("hover").hidden = true; });
  }
  return node;
}

function card(index) {
  const photo = DATA.photos[index];
  const pair = element("span", { className: "pair" }, frame(photo, false), frame(photo, true));
  const node = element("button", { type: "button", className: "card" }, pair,
    element("span", { className: "name", textContent: photo.id, title: photo.id }),
    element("span", {}, ...photo.tags.map(([label]) => chip(label)), ...photo.flags.map(flag)));
  node.dataset.index = index;
  node.addEventListener("click", () => open(state.order.indexOf(index)));
  return node;
}

function more() {
  const next = state.order.slice(state.shown, state.shown + STEP);
  $("gallery").append(...next.map(card));
  state.shown += next.length;
}

function draw() {
  const value = $("tag").value, photos = DATA.photos;
  const order = photos.map((_, index) => index).filter((index) =>
    value === "" ? true : value === "flags" ? photos[index].flags.length > 0 : photos[index].tags.some(([label]) => label === Number(value)));
  const smallest = (photo) => Math.min(1, ...photo.tags.map(([label]) => photo.shares[label] ?? 0));
  const compare = {
    doubt: (a, b) => b.doubt - a.doubt,
    unsure: (a, b) => b.unsure - a.unsure,
    small: (a, b) => smallest(a) - smallest(b),
    name: () => 0,
  }[$("sort").value];
  const byName = (a, b) => (a.id < b.id ? -1 : 1);
  state.order = order.sort((a, b) => compare(photos[a], photos[b]) || byName(photos[a], photos[b]));
  state.shown = 0;
  $("gallery").replaceChildren();
  more();
  $("count").textContent = `${order.length} of ${photos.length} photos`;
}

function open(position) {
  state.open = position;
  const photo = DATA.photos[state.order[position]];
  const [width, height] = photo.size;
  const room = innerWidth > 700 ? 0.45 * innerWidth : 0.88 * innerWidth;
  const shown = Math.round(Math.min(room, (0.68 * innerHeight * width) / height));
  $("viewer-title").textContent = photo.id;
  $("stage").replaceChildren(frame(photo, false, shown), frame(photo, true, shown));
  const facts = photo.tags.map(([label, probability]) => {
    const clip = probability === null ? "" : `, CLIP ${percent(probability)}`;
    return chip(label, `${DATA.classes[label]}: ${percent(photo.shares[label] ?? 0)} of the pixels${clip}`);
  });
  const link = (href, textContent) => element("a", { href, textContent, target: "_blank" });
  $("facts").replaceChildren(...facts, `unsure: ${percent(photo.unsure)} `,
    ...photo.flags.map(flag),
    link(photo.photo, "photo"), " · ", link(photo.mask, "mask"), " · ", link(photo.overlay, "overlay"));
  if (!$("viewer").open) $("viewer").showModal();
}

function opacity(value) {
  $("opacity").value = Math.max(0, Math.min(100, value));
  document.documentElement.style.setProperty("--opacity", state.mask ? $("opacity").value / 100 : 0);
}

function fill(select, options) {
  select.replaceChildren(...options.map(([value, textContent]) => element("option", { value, textContent })));
}

const counts = DATA.classes.map((_, label) => DATA.photos.filter((photo) => photo.tags.some(([tag]) => tag === label)).length);
const flagged = DATA.photos.filter((photo) => photo.flags.length).length;
const used = DATA.classes.map((_, label) => label).filter((label) => counts[label]);
document.title = $("title").textContent = DATA.title;
$("summary").textContent = `${DATA.photos.length} photos, ${flagged} to review, ${percent(DATA.unsure)} of a photo unsure (median)`;
if (DATA.leftOut.length) {
  const [summary, list] = $("left-out").children;
  summary.textContent = `${DATA.leftOut.length} not used`;
  list.append(...DATA.leftOut.map(({ name, photo, reason }) =>
    element("li", {}, element("a", { href: photo, textContent: name, target: "_blank" }), `: ${reason}`)));
  $("left-out").hidden = false;
}
fill($("tag"), [["", "all photos"], ["flags", `to review (${flagged})`], ...used.map((label) => [label, `${DATA.classes[label]} (${counts[label]})`])]);
fill($("sort"), Object.entries(SORTS));
$("legend").append(...used.map((label) => chip(label)));
for (const id of ["tag", "sort"]) $(id).addEventListener("change", draw);
$("opacity").addEventListener("input", () => { state.mask = true; opacity(Number($("opacity").value)); });
$("viewer").addEventListener("close", () => {
  $("hover").hidden = true;
  $("gallery").querySelector(`[data-index="${state.order[state.open]}"]`)?.focus();
});
document.addEventListener("keydown", (event) => {
  if (event.target.matches("select") || event.ctrlKey || event.metaKey || event.altKey) return;
  const change = { "+": 10, "-": -10 }[event.key], step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (change) { state.mask = true; opacity(Number($("opacity").value) + change); }
  else if (event.key === "m") { state.mask = !state.mask; opacity(Number($("opacity").value)); }
  else if (step && $("viewer").open) {
    const next = (state.open + step + state.order.length) % state.order.length;
    while (state.shown <= next) more();
    open(next);
  } else if (step && event.target.matches(".card")) {
    (step < 0 ? event.target.previousElementSibling : event.target.nextElementSibling)?.focus();
  } else return;
  event.preventDefault();
});
new IntersectionObserver((entries) => { if (entries.some((entry) => entry.isIntersecting)) more(); }, { rootMargin: "1500px" }).observe($("end"));
opacity(60);
draw();
