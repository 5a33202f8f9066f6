// The page's data: its rows, the values that rows share, and the marks stored in this browser.

const ID = 0, TEXT = 1, VOICE = 2, STATE = 3, SECONDS = 4, ERROR = 5, LINK = 6, KEY = 7, BATCH = 8, TAKE = 9, NUMBER = 10;
const $ = (id) => document.getElementById(id);
const about = JSON.parse($("about").textContent);
const rows = [];
for (const chunk of document.querySelectorAll("script.rows")) {
  for (const row of JSON.parse(chunk.textContent)) rows.push(row);
  chunk.remove();
}

const voiceOf = (row) => (row[VOICE] === null ? "" : about.voices[row[VOICE]]);
const batchOf = (row) => about.batches[row[BATCH]];
const errorOf = (row) => (row[ERROR] === null ? ["", ""] : about.errors[row[ERROR]]);
const reasonOf = (row) => {
  const [code, message] = errorOf(row);
  return code === "no code" && message ? message : [code, message].filter(Boolean).join(": ");
};
const hasAudio = (row) => row[LINK] !== null;
const playable = (row) => hasAudio(row) && !row[LINK].split("?")[0].endsWith(".pcm");

const clock = (seconds) => {
  const whole = Math.round(seconds);
  const rest = String(whole % 60).padStart(2, "0");
  return whole < 3600 ? `${Math.floor(whole / 60)}:${rest}`
    : `${Math.floor(whole / 3600)}:${String(Math.floor(whole / 60) % 60).padStart(2, "0")}:${rest}`;
};
const counted = (number, word) => `${number.toLocaleString()} ${word}${number === 1 ? "" : "s"}`;
const element = (tag, name = "", text = "") => (
  Object.assign(document.createElement(tag), { className: name, textContent: text }));

// One message at a time, for the eye and for screen readers.

let silence = 0;

function say(words) {
  $("said").textContent = words;
  clearTimeout(silence);
  silence = setTimeout(() => { $("said").textContent = ""; }, 5000);
}

// Marks: stored by batch, row and item, so a new take starts unmarked.

const STORE = `batcher-marks:${about.ledger}`;
const nameOf = (row) => JSON.stringify([batchOf(row), row[ID], row[KEY]]);
const marks = new Map();
try {
  for (const [name, mark] of Object.entries(JSON.parse(localStorage.getItem(STORE) || "{}"))) marks.set(name, mark);
} catch { /* no storage, or unreadable content */ }
const markOf = (row) => marks.get(nameOf(row)) || { mark: "", note: "" };

// Says `words`, and warns if the browser cannot store marks.
function setMark(row, change, words = "") {
  const mark = { ...markOf(row), ...change };
  if (mark.mark || mark.note) marks.set(nameOf(row), mark);
  else marks.delete(nameOf(row));
  let warning = "";
  try {
    localStorage.setItem(STORE, JSON.stringify(Object.fromEntries(marks)));
  } catch {
    warning = "This browser cannot store marks: export them before closing the page.";
  }
  if (words || warning) say([words, warning].filter(Boolean).join(". "));
  showMarks();
}

let numberByName = null; // filled at the first mark, so that the page opens faster

// The store may also hold marks of rows that this page lacks; another page of the same ledger has them.
function markedRows() {
  if (!marks.size) return [];
  numberByName ??= new Map(rows.map((row, number) => [nameOf(row), number]));
  const numbers = [...marks.keys()].map((name) => numberByName.get(name)).filter((number) => number !== undefined);
  return numbers.sort((a, b) => a - b).map((number) => rows[number]);
}

function exportMarks() {
  const found = markedRows().map((row) => (
    { batch: batchOf(row), id: row[ID], key: row[KEY], take: row[TAKE], ...markOf(row) }));
  const file = new Blob([JSON.stringify({ marks: 1, ledger: about.ledger, rows: found }, null, 1) + "\n"],
    { type: "application/json" });
  const link = element("a");
  link.href = URL.createObjectURL(file);
  link.download = marksFile();
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

const marksFile = () => `${about.batches.join("-")}.marks.json`;
