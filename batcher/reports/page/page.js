// What joins the parts: tabs, keys, pointers, dots of the charts, and printing.

const MAX_PRINTED = 5000;
const toRows = () => table.focus({ preventScroll: true });

// Tabs. Their addresses go into the history, so Back returns from a row to its chart.

const tabs = [...document.querySelectorAll("[role=tab]")];
const panelOf = (tab) => $(tab.getAttribute("aria-controls"));
const nameOfTab = (tab) => tab.hash.slice(1);
const rowsShown = () => !$("panel-rows").hidden;
let rowsAt = 0; // where the page was scrolled to when the rows were left

function showTab(name) {
  const wanted = tabs.find((tab) => nameOfTab(tab) === name);
  if (wanted === undefined || !panelOf(wanted).hidden) return;
  if (rowsShown()) rowsAt = scrollY;
  for (const tab of tabs) {
    tab.setAttribute("aria-selected", String(tab === wanted));
    tab.tabIndex = tab === wanted ? 0 : -1;
    panelOf(tab).hidden = tab !== wanted;
  }
  if (location.hash.slice(1) !== name) location.hash = name;
  document.body.dataset.tab = name;
  if (name === "timing") for (const figure of document.querySelectorAll("figure.dots")) linkDots(figure);
  draw(true);
  scrollTo(0, name === "rows" ? rowsAt : 0);
}

for (const tab of tabs) {
  tab.addEventListener("click", (event) => { event.preventDefault(); showTab(nameOfTab(tab)); });
}
$("tabs").addEventListener("keydown", (event) => {
  const at = tabs.indexOf(event.target);
  const next = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: -1, " ": at }[event.key];
  if (at < 0 || next === undefined) return;
  event.preventDefault();
  event.stopPropagation();
  const tab = tabs.at(next % tabs.length);
  showTab(nameOfTab(tab));
  tab.focus();
});
addEventListener("hashchange", () => {
  const name = location.hash.slice(1);
  showTab(tabs.some((tab) => nameOfTab(tab) === name) ? name : "rows");
  if (name === "table") toRows();
});

// Keys. They work wherever the focus is, except where letters are typed or a control has a use for the key.

const pageRows = () => Math.max(1, Math.floor((innerHeight - $("player").offsetHeight) / height) - 2);
const from = (step) => (chosen < 0 ? firstVisible() : chosen + step);
const MOVES = {
  ArrowDown: () => from(1), ArrowUp: () => from(-1), PageDown: () => from(pageRows()), PageUp: () => from(-pageRows()),
  Home: () => 0, End: () => view.length - 1,
};
const TYPING = "select, textarea, input:not([type=range])";
const PRESSED = "a, button, summary"; // Enter and Space have a meaning of their own there

function actOf(event) {
  const { key, target } = event;
  const letters = { g: () => toggleMark("good"), r: () => toggleMark("retake"), n: editNote, "/": toSearch };
  const act = letters[key.toLowerCase()];
  if (act) return act;
  const move = target.type === "range" && !key.startsWith("Arrow") ? undefined : MOVES[key];
  if (move) {
    if (!rowsShown() || !view.length) return null;
    return () => go(Math.max(0, Math.min(view.length - 1, move())));
  }
  if (!["Enter", " "].includes(key) || target.closest(PRESSED) || (chosen < 0 && !rowsShown())) return null;
  return () => (event.shiftKey ? playFrom(from(0)) : toggle(from(0)));
}

function toSearch() {
  showTab("rows");
  $("search").focus();
  $("search").select();
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  if (event.key === "Escape") return void toRows();
  if (event.target.closest(TYPING)) return;
  const act = actOf(event);
  if (!act) return;
  event.preventDefault();
  act();
});
$("search").addEventListener("keydown", (event) => {
  if (event.isComposing || !["Enter", "ArrowDown"].includes(event.key)) return;
  event.preventDefault();
  if (view.length) go(0);
  toRows();
});

// Pointers. After a click the focus is on the table, so the next key is for the rows and not for what was clicked.
// A row's buttons also leave the document when it scrolls out of view.

let byPointer = false;
addEventListener("pointerdown", () => { byPointer = true; }, true);
addEventListener("keydown", () => { byPointer = false; }, true);
addEventListener("click", (event) => { if (event.detail && event.target.closest("button")) toRows(); }, true);
$("filters").addEventListener("change", (event) => { if (byPointer && event.target.matches("select")) toRows(); });
pane.addEventListener("click", (event) => {
  const line = event.target.closest(".row");
  if (!line) return;
  const index = Number(line.dataset.index), button = event.target.closest("button");
  toRows();
  if (button?.classList.contains("go")) return toggle(index);
  choose(index);
  if (button?.dataset.mark === "note") return editNote();
  return button && toggleMark(button.dataset.mark);
});
$("play-all").addEventListener("click", () => { playFrom(0); toRows(); });
$("all-rows").addEventListener("click", () => { clearFilters(); toRows(); });
$("filters").addEventListener("input", filter);
$("filters").addEventListener("submit", (event) => event.preventDefault());
for (const button of document.querySelectorAll("button.pick")) {
  button.addEventListener("click", () => {
    const number = stateNumber(button.dataset.state);
    byState = byState === number ? -1 : number;
    showTab("rows");
    filter();
  });
}
addEventListener("scroll", () => draw(false), { passive: true });
addEventListener("resize", () => draw(true));

// Dots of a chart lead to their rows: under the pointer, and one by one with the buttons below, the oddest first.

const REACH = 14; // how near to a dot a pointer must be, in units of the chart
let numbersByKey = null;

function numbersOf(key) {
  if (numbersByKey === null) {
    numbersByKey = new Map();
    rows.forEach((row, number) => {
      if (!numbersByKey.has(row[KEY])) numbersByKey.set(row[KEY], []);
      numbersByKey.get(row[KEY]).push(number);
    });
  }
  return numbersByKey.get(key) ?? [];
}

function linkDots(figure) {
  const svg = figure.querySelector("svg"), row = figure.querySelector(".to-row");
  const circles = [...svg.querySelectorAll("circle")];
  const dots = circles.map((circle) => ({
    circle, x: Number(circle.getAttribute("cx")), y: Number(circle.getAttribute("cy")),
    numbers: circle.dataset.keys.split(" ").flatMap(numbersOf),
  })).filter((dot) => dot.numbers.length);
  if (!dots.length || !figure.querySelector(".outliers").hidden) return; // nothing to lead to, or linked already
  let at = 0;
  const show = (next) => {
    dots[at].circle.classList.remove("at");
    at = (next + dots.length) % dots.length;
    const { circle, numbers } = dots[at];
    circle.classList.add("at");
    svg.append(circle); // above its neighbours
    const others = numbers.length > 1 ? ` (and ${counted(numbers.length - 1, "other row")})` : "";
    row.textContent = `${rows[numbers[0]][ID]}${others}: ${circle.dataset.at}`;
  };
  const near = (event) => {
    const place = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
    const far = dots.map((dot) => Math.hypot(dot.x - place.x, dot.y - place.y));
    const nearest = far.indexOf(Math.min(...far));
    svg.classList.toggle("over", far[nearest] <= REACH);
    return far[nearest] <= REACH ? nearest : -1;
  };
  svg.addEventListener("pointermove", (event) => { if (near(event) >= 0) show(near(event)); });
  svg.addEventListener("click", (event) => {
    const nearest = near(event);
    if (nearest < 0) return;
    show(nearest);
    showRows(dots[at].numbers);
  });
  figure.querySelector(".before").addEventListener("click", () => show(at - 1));
  figure.querySelector(".after").addEventListener("click", () => show(at + 1));
  row.addEventListener("click", () => showRows(dots[at].numbers));
  figure.querySelector(".outliers").hidden = false;
  show(0);
}

// One row is chosen among all others; several are shown alone.
function showRows(numbers) {
  showTab("rows");
  clearFilters();
  if (numbers.length > 1) {
    byDot = new Set(numbers);
    filter();
  }
  go(numbers.length > 1 ? 0 : view.indexOf(numbers[0]));
  toRows();
}

// Printing: paper does not scroll, so all rows that fit the filters are in the document, one below the other.

addEventListener("beforeprint", () => {
  printing = true;
  const number = Math.min(view.length, MAX_PRINTED);
  drawn.clear();
  pane.replaceChildren(...Array.from({ length: number }, (_, index) => {
    const line = rowElement(index);
    refresh(line, index);
    return line;
  }));
  $("cut").hidden = number === view.length;
  $("cut").textContent = `${number.toLocaleString()} of ${counted(view.length, "row")} printed; filter to print others`;
});
addEventListener("afterprint", () => { printing = false; $("cut").hidden = true; draw(true); });

// The start.

const digits = String(rows.reduce((most, row) => Math.max(most, row[NUMBER]), 0)).length;
table.style.setProperty("--digits", String(digits));
$("marks-file").textContent = marksFile();
document.body.dataset.tab = "rows";
for (const tab of tabs) panelOf(tab).hidden = nameOfTab(tab) !== "rows";
$("tabs").hidden = false;
fillSelects();
filter();
showMarks();
$("about-marks").hidden = !markedRows().length;
showTab(location.hash.slice(1));
