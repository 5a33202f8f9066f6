"use strict";
(() => {
  const ID = 0, TEXT = 1, VOICE = 2, STATE = 3, SECONDS = 4, ERROR = 5, LINK = 6, KEY = 7, BATCH = 8, TAKE = 9;
  const MAX_PIXELS = 15e6; // browsers cannot lay out anything much taller
  const MAX_PRINTED = 5000;
  const $ = (id) => document.getElementById(id);
  const about = JSON.parse($("about").textContent);
  const rows = [];
  for (const chunk of document.querySelectorAll("script.rows")) {
    for (const row of JSON.parse(chunk.textContent)) rows.push(row);
    chunk.remove();
  }

  const voiceOf = (row) => (row[VOICE] === null ? "" : about.voices[row[VOICE]]);
  const errorOf = (row) => (row[ERROR] === null ? ["", ""] : about.errors[row[ERROR]]);
  const clock = (seconds) => {
    const whole = Math.round(seconds);
    const rest = String(whole % 60).padStart(2, "0");
    return whole < 3600 ? `${Math.floor(whole / 60)}:${rest}`
      : `${Math.floor(whole / 3600)}:${String(Math.floor(whole / 60) % 60).padStart(2, "0")}:${rest}`;
  };
  const element = (tag, name = "", text = "") => (
    Object.assign(document.createElement(tag), { className: name, textContent: text }));
  const counted = (number, word) => `${number.toLocaleString()} ${word}${number === 1 ? "" : "s"}`;
  const playable = (row) => row[LINK] !== null && !row[LINK].endsWith(".pcm");

  // Marks: stored in this browser by batch, row and item, so a new take starts unmarked.

  const STORE = `batcher-marks:${about.ledger}`;
  const nameOf = (row) => JSON.stringify([about.batches[row[BATCH]], row[ID], row[KEY]]);
  const marks = new Map();
  try {
    for (const [name, mark] of Object.entries(JSON.parse(localStorage.getItem(STORE) || "{}"))) marks.set(name, mark);
  } catch { /* no storage, or unreadable content */ }
  const markOf = (row) => marks.get(nameOf(row)) || { mark: "", note: "" };

  function setMark(row, change) {
    const mark = { ...markOf(row), ...change };
    if (mark.mark || mark.note) marks.set(nameOf(row), mark);
    else marks.delete(nameOf(row));
    try {
      localStorage.setItem(STORE, JSON.stringify(Object.fromEntries(marks)));
    } catch {
      $("found").textContent = "This browser cannot store marks: export them before closing the page.";
    }
    showMarks();
  }

  const markedRows = () => rows.filter((row) => marks.has(nameOf(row)));

  function exportMarks() {
    const found = markedRows().map((row) => (
      { batch: about.batches[row[BATCH]], id: row[ID], key: row[KEY], take: row[TAKE], ...markOf(row) }));
    const file = new Blob([JSON.stringify({ marks: 1, ledger: about.ledger, rows: found }, null, 1) + "\n"],
      { type: "application/json" });
    const link = element("a");
    link.href = URL.createObjectURL(file);
    link.download = `${about.batches.join("-")}.marks.json`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }

  // Filters.

  const searchTexts = []; // filled on demand, so that the page opens faster
  const searchTextOf = (number) => {
    const row = rows[number];
    searchTexts[number] ??= [row[ID], row[TEXT], voiceOf(row), ...errorOf(row)].join("\n").toLowerCase();
    return searchTexts[number];
  };
  let view = rows.map((_, number) => number);
  let chosen = -1; // an index into `view`

  function fillSelect(select, counts) {
    for (const [value, [label, number]] of [...counts].sort((a, b) => b[1][1] - a[1][1]).slice(0, 500)) {
      const option = element("option", "", `${label} (${number.toLocaleString()})`);
      option.value = value;
      select.append(option);
    }
    select.disabled = counts.size === 0;
  }

  function fillSelects() {
    const [states, voices, errors] = [new Map(), new Map(), new Map()];
    const count = (counts, value, label) => counts.set(value, [label, (counts.get(value)?.[1] ?? 0) + 1]);
    for (const row of rows) {
      count(states, String(row[STATE]), about.states[row[STATE]][1]);
      if (row[VOICE] !== null) count(voices, String(row[VOICE]), voiceOf(row));
      if (row[ERROR] !== null) count(errors, errorOf(row)[0], errorOf(row)[0]);
    }
    fillSelect($("by-state"), states);
    fillSelect($("by-voice"), voices);
    fillSelect($("by-error"), errors);
  }

  function filter() {
    const [state, voice, error, mark] = ["state", "voice", "error", "mark"].map((name) => $(`by-${name}`).value);
    const words = $("search").value.trim().toLowerCase();
    const before = chosen < 0 ? -1 : view[chosen];
    const fits = (row, number) => (state === "" || row[STATE] === Number(state))
      && (voice === "" || row[VOICE] === Number(voice))
      && (error === "" || errorOf(row)[0] === error)
      && (mark === "" || hasMark(row, mark))
      && (words === "" || searchTextOf(number).includes(words));
    view = [];
    rows.forEach((row, number) => { if (fits(row, number)) view.push(number); });
    chosen = before < 0 ? -1 : view.indexOf(before);
    $("found").textContent = view.length === rows.length
      ? counted(rows.length, "row")
      : `${view.length.toLocaleString()} of ${counted(rows.length, "row")}`;
    draw(true);
  }

  function hasMark(row, choice) {
    const { mark, note } = markOf(row);
    return choice === "note" ? note !== "" : choice === "none" ? !mark && !note : mark === choice;
  }

  // The table: only visible rows are in the document.

  const table = $("table"), pane = $("window");
  const drawn = new Map();
  let height = 0;
  let printing = false;

  function rowElement(index) {
    const row = rows[view[index]], [state, label] = about.states[row[STATE]];
    const line = element("div", `row is-${state}`);
    line.id = `row-${index}`;
    line.dataset.index = String(index);
    line.setAttribute("role", "row");
    line.setAttribute("aria-rowindex", String(index + 2));
    const cells = ["play", "id", "text", "voice", "state", "length n", "mark"].map((name) => {
      const cell = element("span", `c ${name}`);
      cell.setAttribute("role", "gridcell");
      return cell;
    });
    const button = element("button", "go", "▶");
    button.type = "button";
    button.tabIndex = -1;
    button.disabled = !playable(row);
    button.setAttribute("aria-label", `Play ${row[ID]}`);
    cells[0].append(button);
    cells[1].append(element("b", "", row[ID]));
    if (row[TAKE] > 1) cells[1].append(element("small", "", `take ${row[TAKE]}`));
    cells[2].append(element("q", "", row[TEXT]));
    cells[3].textContent = voiceOf(row);
    cells[4].append(element("i", `dot s-${state}`), element("span", "", label));
    if (row[ERROR] !== null) cells[4].append(element("small", "error", errorOf(row)[0]));
    cells[5].textContent = row[SECONDS] === null ? "" : clock(row[SECONDS]);
    line.append(...cells);
    return line;
  }

  function refresh(line, index) {
    const row = rows[view[index]], { mark, note } = markOf(row), cell = line.lastChild;
    line.classList.toggle("chosen", index === chosen);
    line.setAttribute("aria-selected", String(index === chosen));
    line.classList.toggle("sounding", view[index] === sounding && !audio.paused);
    const words = [mark, note].filter(Boolean).join(": ");
    if (cell.textContent !== words) cell.textContent = words;
    cell.className = `c mark m-${mark || (note ? "note" : "none")}`;
  }

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
    if (chosen >= 0) table.setAttribute("aria-activedescendant", `row-${chosen}`);
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

  function scrollToRow(index) {
    const full = view.length * height, laid = Math.min(full, MAX_PIXELS), top = index * height;
    const room = Math.max(1, laid - innerHeight);
    const above = full > laid ? top * room / (room + full - laid) : top;
    const start = pane.getBoundingClientRect().top + scrollY, here = scrollY - start;
    const margin = height * 2, covered = $("player").hidden ? 0 : $("player").offsetHeight;
    if (above < here + margin || above > here + innerHeight - covered - margin - height) {
      scrollTo(0, start + above - (innerHeight - covered) / 3);
    }
    draw(false);
  }

  // The player: one audio element for all rows.

  const audio = $("audio");
  let sounding = -1; // index of the row
  let continuous = false;

  function choose(index) {
    chosen = index;
    $("player").hidden = index < 0;
    if (index >= 0) {
      const row = rows[view[index]], [code, message] = errorOf(row);
      const words = [row[ID], voiceOf(row), row[TAKE] > 1 ? `take ${row[TAKE]}` : "", about.states[row[STATE]][1]];
      $("now").textContent = words.filter(Boolean).join(" · ");
      $("now-text").textContent = row[TEXT];
      $("now-error").textContent = [code, message].filter(Boolean).join(": ");
      $("note").value = markOf(row).note;
      $("play").disabled = !playable(row);
      $("file").hidden = row[LINK] === null;
      if (row[LINK] !== null) $("file").href = row[LINK];
      scrollToRow(index);
    }
    showMarks();
  }

  function sourceOf(row) {
    const inside = $(`audio-${row[KEY]}`);
    return inside ? `data:${inside.dataset.media};base64,${inside.textContent}` : row[LINK];
  }

  function play(index) {
    choose(index);
    const row = rows[view[index]];
    if (!playable(row)) return;
    if (sounding !== view[index]) {
      sounding = view[index];
      audio.src = sourceOf(row);
    }
    audio.play().catch((error) => {
      if (error.name !== "AbortError") $("now-error").textContent = `Cannot play: ${error.message}`;
    });
  }

  function toggle(index) {
    if (view[index] === sounding && !audio.paused) audio.pause();
    else play(index);
  }

  function playableFrom(index) {
    while (index < view.length && !playable(rows[view[index]])) index += 1;
    return index < view.length ? index : -1;
  }

  function setContinuous(on) {
    continuous = on;
    $("onward").setAttribute("aria-pressed", String(on));
  }

  function playFrom(index) {
    const first = playableFrom(Math.max(0, index));
    if (first < 0) return;
    setContinuous(true);
    play(first);
  }

  function showTime() {
    const length = Number.isFinite(audio.duration) ? audio.duration : 0;
    $("time").textContent = `${clock(audio.currentTime)} / ${clock(length)}`;
    $("seek").value = length ? String(1000 * audio.currentTime / length) : "0";
    $("play").textContent = audio.paused ? "▶" : "❚❚";
    $("play").setAttribute("aria-label", audio.paused ? "Play" : "Pause");
  }

  function showMarks() {
    const row = chosen < 0 ? null : rows[view[chosen]];
    for (const name of ["good", "retake"]) {
      $(name).setAttribute("aria-pressed", String(row !== null && markOf(row).mark === name));
      $(name).disabled = row === null || row[LINK] === null;
    }
    const number = marks.size ? markedRows().length : 0;
    $("export").disabled = !number;
    $("export").textContent = number ? `Export ${counted(number, "mark")}` : "Export marks";
    draw(false);
  }

  const toggleMark = (name) => {
    if (chosen < 0) return;
    const row = rows[view[chosen]];
    if (row[LINK] !== null) setMark(row, { mark: markOf(row).mark === name ? "" : name });
  };

  for (const name of ["play", "pause", "timeupdate", "durationchange"]) audio.addEventListener(name, showTime);
  for (const name of ["play", "pause"]) audio.addEventListener(name, () => draw(false));
  audio.addEventListener("error", () => {
    $("now-error").textContent = "Cannot play the audio. Was its file moved or deleted?";
    sounding = -1;
  });
  audio.addEventListener("ended", () => {
    const next = continuous ? playableFrom(chosen + 1) : -1;
    if (next >= 0) play(next);
    else setContinuous(false);
  });
  $("play").addEventListener("click", () => chosen >= 0 && toggle(chosen));
  $("previous").addEventListener("click", () => go(chosen - 1));
  $("next").addEventListener("click", () => go(chosen + 1));
  $("seek").addEventListener("input", () => {
    if (Number.isFinite(audio.duration)) audio.currentTime = audio.duration * Number($("seek").value) / 1000;
  });
  $("onward").addEventListener("click", () => (continuous ? setContinuous(false) : playFrom(chosen)));
  $("play-all").addEventListener("click", () => playFrom(0));
  $("good").addEventListener("click", () => toggleMark("good"));
  $("retake").addEventListener("click", () => toggleMark("retake"));
  $("note").addEventListener("input", () => chosen >= 0 && setMark(rows[view[chosen]], { note: $("note").value }));
  $("close").addEventListener("click", () => { audio.pause(); choose(-1); table.focus({ preventScroll: true }); });
  $("export").addEventListener("click", exportMarks);

  // Selects a row; if another one is playing, plays this one instead.
  function go(index) {
    if (index < 0 || index >= view.length) return;
    if (!audio.paused && playable(rows[view[index]])) play(index);
    else choose(index);
  }

  // Keys and pointers.

  pane.addEventListener("click", (event) => {
    const line = event.target.closest(".row");
    if (!line) return;
    const index = Number(line.dataset.index);
    if (event.target.closest("button.go")) toggle(index);
    else choose(index);
  });

  const pageRows = () => Math.max(1, Math.floor(innerHeight / height) - 3);
  const moves = {
    ArrowDown: () => chosen + 1, ArrowUp: () => chosen - 1, PageDown: () => chosen + pageRows(),
    PageUp: () => chosen - pageRows(), Home: () => 0, End: () => view.length - 1,
  };
  table.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !view.length) return;
    const move = moves[event.key];
    if (move) go(Math.max(0, Math.min(view.length - 1, move())));
    else if (event.key === "Enter" && event.shiftKey) playFrom(chosen);
    else if (event.key === "Enter" || event.key === " ") toggle(Math.max(0, chosen));
    else return;
    event.preventDefault();
  });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Escape") return void table.focus({ preventScroll: true });
    if (event.target.closest("input, select, textarea")) return;
    const key = event.key.toLowerCase();
    if (key === "g" || key === "r") toggleMark(key === "g" ? "good" : "retake");
    else if (key === "n" && chosen >= 0) $("note").focus();
    else if (key === "/") $("search").focus();
    else return;
    event.preventDefault();
  });

  $("filters").addEventListener("input", filter);
  $("filters").addEventListener("submit", (event) => event.preventDefault());
  addEventListener("scroll", () => draw(false), { passive: true });
  addEventListener("resize", () => draw(true));

  // Printing: paper does not scroll, so all rows are in the document, one below the other.

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

  table.classList.toggle("no-text", !about.texts);
  fillSelects();
  filter();
  showMarks();
})();
