// The filters, and the table of the rows that fit them. Only rows on the screen are in the document.

const MAX_PIXELS = 15e6; // browsers cannot lay out anything much taller
const MAX_OPTIONS = 500;
const table = $("table"), pane = $("window");
let view = rows.map((_, number) => number);
let chosen = -1; // an index into `view`
const chosenRow = () => (chosen < 0 ? null : rows[view[chosen]]);

// Filters.

let byState = -1; // an index into `about.states`
let byDot = null; // numbers of the rows behind a dot of a chart

const searchTexts = []; // filled on demand, so that the page opens faster
const searchTextOf = (number) => {
  const row = rows[number];
  searchTexts[number] ??= [row[ID], row[TEXT], voiceOf(row), batchOf(row), ...errorOf(row)].join("\n").toLowerCase();
  return searchTexts[number];
};

function fillSelect(select, counts) {
  for (const [value, [label, number]] of [...counts].sort((a, b) => b[1][1] - a[1][1]).slice(0, MAX_OPTIONS)) {
    const option = element("option", "", `${label} (${number.toLocaleString()})`);
    option.value = value;
    option.dataset.label = label;
    select.append(option);
  }
  select.disabled = counts.size === 0;
}

function fillSelects() {
  const [voices, errors] = [new Map(), new Map()];
  const count = (counts, value, label) => counts.set(value, [label, (counts.get(value)?.[1] ?? 0) + 1]);
  for (const row of rows) {
    if (row[VOICE] !== null) count(voices, String(row[VOICE]), voiceOf(row));
    if (row[ERROR] !== null) count(errors, errorOf(row)[0], errorOf(row)[0]);
  }
  fillSelect($("by-voice"), voices);
  fillSelect($("by-error"), errors);
}

function filter() {
  const [voice, error, mark] = ["voice", "error", "mark"].map((name) => $(`by-${name}`).value);
  const words = $("search").value.trim().toLowerCase();
  const before = chosen < 0 ? -1 : view[chosen];
  const fits = (row, number) => (byState < 0 || row[STATE] === byState)
    && (byDot === null || byDot.has(number))
    && (voice === "" || row[VOICE] === Number(voice))
    && (error === "" || errorOf(row)[0] === error)
    && (mark === "" || hasMark(row, mark))
    && (words === "" || searchTextOf(number).includes(words));
  view = [];
  rows.forEach((row, number) => { if (fits(row, number)) view.push(number); });
  chosen = before < 0 ? -1 : view.indexOf(before);
  if (chosen < 0) audio.pause(); // the player shows the chosen row, so nothing could stop it
  showFilters();
  draw(true);
  choose(chosen, false);
}

function showFilters() {
  for (const button of document.querySelectorAll("button.pick")) {
    button.setAttribute("aria-pressed", String(stateNumber(button.dataset.state) === byState));
  }
  const words = filterWords().join(", ");
  $("found").textContent = words ? `${view.length.toLocaleString()} of ${counted(rows.length, "row")}: ${words}`
    : counted(rows.length, "row");
  $("all-rows").hidden = !words;
}

function filterWords() {
  const chosenOptions = ["by-voice", "by-error", "by-mark"].map((id) => $(id).selectedOptions[0]);
  const words = chosenOptions.filter((option) => option.value).map((option) => option.dataset.label ?? option.text);
  if (byState >= 0) words.unshift(about.states[byState][1]);
  if (byDot !== null) words.push("one dot of the chart");
  if ($("search").value.trim()) words.push(`“${$("search").value.trim()}”`);
  return words;
}

const stateNumber = (name) => about.states.findIndex(([state]) => state === name);

function clearFilters() {
  $("filters").reset();
  [byState, byDot] = [-1, null];
  filter();
}

function hasMark(row, choice) {
  const { mark, note } = markOf(row);
  return choice === "note" ? note !== "" : choice === "none" ? !mark && !note : mark === choice;
}

// Elements of a row.

const CELLS = ["play", "number n", "id", "text", "voice", "state", "length n", "mark"];
const MARKS = [["good", "✓", "as good", "Good (G)"], ["retake", "↻", "for a retake", "Retake (R)"],
  ["note", "✎", "with a note", "Note (N)"]];

function rowElement(index) {
  const row = rows[view[index]], [state, label] = about.states[row[STATE]];
  const line = element("div", `row is-${state}`);
  line.id = `row-${index}`;
  line.dataset.index = String(index);
  line.setAttribute("role", "row");
  line.setAttribute("aria-rowindex", String(index + 2));
  const cells = CELLS.map((name) => {
    const cell = element("span", `c ${name}`);
    cell.setAttribute("role", "gridcell");
    return cell;
  });
  const [play, number, id, text, voice, stateCell, length, mark] = cells;
  play.append(smallButton("go", "▶", `Play ${row[ID]}`, !playable(row)));
  number.textContent = String(row[NUMBER]);
  id.append(element("b", "", row[ID]));
  const origin = [about.batches.length > 1 ? batchOf(row) : "", row[TAKE] > 1 ? `take ${row[TAKE]}` : ""];
  if (origin.some(Boolean)) id.append(element("small", "", origin.filter(Boolean).join(" · ")));
  text.append(element("q", "", row[TEXT]), element("small", "reason", reasonOf(row)), element("small", "remark"));
  text.title = reasonOf(row);
  voice.textContent = voiceOf(row);
  stateCell.append(element("i", `dot s-${state}`), element("span", "", label));
  length.textContent = row[SECONDS] === null ? "" : clock(row[SECONDS]);
  for (const [name, sign, words, title] of MARKS) {
    const button = smallButton(`to-${name}`, sign, `Mark ${row[ID]} ${words}`, name !== "note" && !hasAudio(row));
    button.dataset.mark = name;
    button.title = title;
    mark.append(button);
  }
  line.append(...cells);
  return line;
}

// Reached by pointers and screen readers. With the keyboard, each has its key, so the table is one stop of Tab.
function smallButton(name, sign, label, disabled) {
  const button = Object.assign(element("button", name, sign), { type: "button", tabIndex: -1, disabled });
  button.setAttribute("aria-label", label);
  return button;
}

function refresh(line, index) {
  const row = rows[view[index]], { mark, note } = markOf(row);
  line.classList.toggle("chosen", index === chosen);
  line.setAttribute("aria-selected", String(index === chosen));
  line.classList.toggle("sounding", view[index] === sounding && !audio.paused);
  line.classList.toggle("more", row[ERROR] !== null || note !== "");
  line.querySelector(".remark").textContent = note;
  for (const button of line.lastChild.children) {
    const { mark: name } = button.dataset;
    button.setAttribute("aria-pressed", String(name === "note" ? note !== "" : mark === name));
  }
}

// Which rows are on the screen.

const drawn = new Map();
let height = 0;
let printing = false;

function draw(fresh) {
  if (printing) return;
  if (fresh) {
    drawn.clear();
    pane.replaceChildren();
    height = parseFloat(getComputedStyle(table).getPropertyValue("--row"));
    pane.style.height = `${Math.min(view.length * height, MAX_PIXELS)}px`;
    table.setAttribute("aria-rowcount", String(view.length + 1));
  }
  const visible = visibleRange();
  for (const [index, line] of drawn) {
    if (index < visible.first || index >= visible.end) {
      line.remove();
      drawn.delete(index);
    }
  }
  for (let index = visible.first; index < visible.end; index += 1) {
    if (!drawn.has(index)) {
      drawn.set(index, rowElement(index));
      pane.append(drawn.get(index));
    }
    drawn.get(index).style.transform = `translateY(${index * height - visible.shift}px)`;
    refresh(drawn.get(index), index);
  }
  if (drawn.has(chosen)) table.setAttribute("aria-activedescendant", `row-${chosen}`);
  else table.removeAttribute("aria-activedescendant");
}

// If the rows are taller than a browser can lay out, scrolling moves faster through the rows than through the page.
function visibleRange() {
  const full = view.length * height, laid = Math.min(full, MAX_PIXELS);
  const above = Math.max(0, -pane.getBoundingClientRect().top);
  const room = Math.max(1, laid - innerHeight);
  const shift = Math.min(1, above / room) * (full - laid);
  const first = Math.max(0, Math.floor((above + shift) / height) - 6);
  return { first, end: Math.min(view.length, first + Math.ceil(innerHeight / height) + 12), shift };
}

// The first row that is entirely below the table's head.
function firstVisible() {
  const head = table.firstElementChild.getBoundingClientRect().bottom;
  const seen = [...drawn].filter(([, line]) => line.getBoundingClientRect().top >= head - 1);
  return Math.min(view.length - 1, ...seen.map(([index]) => index));
}

function scrollToRow(index) {
  const full = view.length * height, laid = Math.min(full, MAX_PIXELS), top = index * height;
  const room = Math.max(1, laid - innerHeight);
  const above = full > laid ? top * room / (room + full - laid) : top;
  const start = pane.getBoundingClientRect().top + scrollY, here = scrollY - start;
  const margin = height, covered = $("player").offsetHeight;
  if (above < here + margin || above > here + innerHeight - covered - margin - height) {
    scrollTo(0, start + above - (innerHeight - covered) / 3);
  }
  draw(false);
}
