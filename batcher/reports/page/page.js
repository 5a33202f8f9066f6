"use strict";
(() => {
  const ID = 0, TEXT = 1, VOICE = 2, STATE = 3, SECONDS = 4, ERROR = 5, LINK = 6, KEY = 7, BATCH = 8, TAKE = 9;
  const MOST_PIXELS = 15e6; // browsers lay out nothing that is much taller
  const MOST_PRINTED = 5000;
  const $ = (id) => document.getElementById(id);
  const about = JSON.parse($("about").textContent);
  const rows = [];
  for (const chunk of document.querySelectorAll("script.rows")) {
    for (const row of JSON.parse(chunk.textContent)) rows.push(row);
    chunk.remove();
  }

  // What of a row is shown and searched.

  const voiceOf = (row) => (row[VOICE] === null ? "" : about.voices[row[VOICE]]);
  const errorOf = (row) => (row[ERROR] === null ? ["", ""] : about.errors[row[ERROR]]);
  const clock = (seconds) => {
    const whole = Math.round(seconds);
    const rest = String(whole % 60).padStart(2, "0");
    return whole < 3600 ? `${Math.floor(whole / 60)}:${rest}`
      : `${Math.floor(whole / 3600)}:${String(Math.floor(whole / 60) % 60).padStart(2, "0")}:${rest}`;
  };
  const element = (tag, name = "", words = "") => (
    Object.assign(document.createElement(tag), { className: name, textContent: words }));
  const playable = (row) => row[LINK] !== null && !row[LINK].endsWith(".pcm");

  // Marks: kept in this browser, by batch, row and item, so that another take begins without one.

  const SHELF = `batcher-marks:${about.ledger}`;
  const nameOf = (row) => JSON.stringify([about.batches[row[BATCH]], row[ID], row[KEY]]);
  const marks = new Map();
  try {
    for (const [name, mark] of Object.entries(JSON.parse(localStorage.getItem(SHELF) || "{}"))) marks.set(name, mark);
  } catch { /* nothing is kept here, or nothing that can be read */ }
  const markOf = (row) => marks.get(nameOf(row)) || { mark: "", note: "" };

  function setMark(row, change) {
    const mark = { ...markOf(row), ...change };
    if (mark.mark || mark.note) marks.set(nameOf(row), mark);
    else marks.delete(nameOf(row));
    try {
      localStorage.setItem(SHELF, JSON.stringify(Object.fromEntries(marks)));
    } catch {
      $("found").textContent = "This browser keeps no marks: export them before you close the page.";
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

  const searched = []; // made when first needed: a page that is only looked at opens sooner
  const searchedOf = (number) => {
    const row = rows[number];
    searched[number] ??= [row[ID], row[TEXT], voiceOf(row), ...errorOf(row)].join("\n").toLowerCase();
    return searched[number];
  };
  let view = rows.map((_, number) => number);
  let chosen = -1; // a place in `view`

  function offer(select, counts) {
    for (const [value, [words, number]] of [...counts].sort((a, b) => b[1][1] - a[1][1]).slice(0, 500)) {
      const option = element("option", "", `${words} (${number.toLocaleString()})`);
      option.value = value;
      select.append(option);
    }
    select.disabled = counts.size === 0;
  }

  function offerAll() {
    const [states, voices, errors] = [new Map(), new Map(), new Map()];
    const count = (counts, value, words) => counts.set(value, [words, (counts.get(value)?.[1] ?? 0) + 1]);
    for (const row of rows) {
      count(states, String(row[STATE]), about.states[row[STATE]][1]);
      if (row[VOICE] !== null) count(voices, String(row[VOICE]), voiceOf(row));
      if (row[ERROR] !== null) count(errors, errorOf(row)[0], errorOf(row)[0]);
    }
    offer($("by-state"), states);
    offer($("by-voice"), voices);
    offer($("by-error"), errors);
  }

  function filter() {
    const [state, voice, error, mark] = ["state", "voice", "error", "mark"].map((name) => $(`by-${name}`).value);
    const words = $("search").value.trim().toLowerCase();
    const kept = chosen < 0 ? -1 : view[chosen];
    const fits = (row, number) => (state === "" || row[STATE] === Number(state))
      && (voice === "" || row[VOICE] === Number(voice))
      && (error === "" || errorOf(row)[0] === error)
      && (mark === "" || hasMark(row, mark))
      && (words === "" || searchedOf(number).includes(words));
    view = [];
    rows.forEach((row, number) => { if (fits(row, number)) view.push(number); });
    chosen = kept < 0 ? -1 : view.indexOf(kept);
    $("found").textContent = view.length === rows.length
      ? `${rows.length.toLocaleString()} rows`
      : `${view.length.toLocaleString()} of ${rows.length.toLocaleString()} rows`;
    draw(true);
  }

  function hasMark(row, wanted) {
    const { mark, note } = markOf(row);
    return wanted === "note" ? note !== "" : wanted === "none" ? !mark && !note : mark === wanted;
  }

  // The table: only rows in sight are in the document.

  const table = $("table"), pane = $("window");
  const drawn = new Map();
  let height = 0;
  let printing = false;

  function rowElement(place) {
    const row = rows[view[place]], [state, words] = about.states[row[STATE]];
    const made = element("div", `row is-${state}`);
    made.id = `row-${place}`;
    made.dataset.place = String(place);
    made.setAttribute("role", "row");
    made.setAttribute("aria-rowindex", String(place + 2));
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
    cells[4].append(element("i", `dot s-${state}`), element("span", "", words));
    if (row[ERROR] !== null) cells[4].append(element("small", "error", errorOf(row)[0]));
    cells[5].textContent = row[SECONDS] === null ? "" : clock(row[SECONDS]);
    made.append(...cells);
    return made;
  }

  function dress(made, place) {
    const row = rows[view[place]], { mark, note } = markOf(row), cell = made.lastChild;
    made.classList.toggle("chosen", place === chosen);
    made.setAttribute("aria-selected", String(place === chosen));
    made.classList.toggle("sounding", view[place] === sounding && !audio.paused);
    const words = [mark, note].filter(Boolean).join(": ");
    if (cell.textContent !== words) cell.textContent = words;
    cell.className = `c mark m-${mark || (note ? "note" : "none")}`;
  }

  function draw(anew) {
    if (printing) return;
    if (anew) {
      drawn.clear();
      pane.replaceChildren();
      height = parseFloat(getComputedStyle(table).getPropertyValue("--row"));
      pane.style.height = `${Math.min(view.length * height, MOST_PIXELS)}px`;
      table.setAttribute("aria-rowcount", String(view.length + 1));
    }
    const seen = sight();
    for (const [place, made] of drawn) {
      if (place < seen.first || place >= seen.end) {
        made.remove();
        drawn.delete(place);
      }
    }
    for (let place = seen.first; place < seen.end; place += 1) {
      if (!drawn.has(place)) {
        drawn.set(place, rowElement(place));
        pane.append(drawn.get(place));
      }
      drawn.get(place).style.transform = `translateY(${place * height - seen.shift}px)`;
      dress(drawn.get(place), place);
    }
    if (chosen >= 0) table.setAttribute("aria-activedescendant", `row-${chosen}`);
    else table.removeAttribute("aria-activedescendant");
  }

  // Where rows would lie far beyond what can be laid out, scrolling moves faster through them than through the page.
  function sight() {
    const full = view.length * height, laid = Math.min(full, MOST_PIXELS);
    const above = Math.max(0, -pane.getBoundingClientRect().top);
    const room = Math.max(1, laid - innerHeight);
    const shift = Math.min(1, above / room) * (full - laid);
    const first = Math.max(0, Math.floor((above + shift) / height) - 6);
    return { first, end: Math.min(view.length, first + Math.ceil(innerHeight / height) + 12), shift };
  }

  function bringIntoSight(place) {
    const full = view.length * height, laid = Math.min(full, MOST_PIXELS), top = place * height;
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
  let sounding = -1; // a row
  let onward = false;

  function choose(place) {
    chosen = place;
    $("player").hidden = place < 0;
    if (place >= 0) {
      const row = rows[view[place]], [code, message] = errorOf(row);
      const words = [row[ID], voiceOf(row), row[TAKE] > 1 ? `take ${row[TAKE]}` : "", about.states[row[STATE]][1]];
      $("now").textContent = words.filter(Boolean).join(" · ");
      $("now-text").textContent = row[TEXT];
      $("now-error").textContent = [code, message].filter(Boolean).join(": ");
      $("note").value = markOf(row).note;
      $("play").disabled = !playable(row);
      $("file").hidden = row[LINK] === null;
      if (row[LINK] !== null) $("file").href = row[LINK];
      bringIntoSight(place);
    }
    showMarks();
  }

  function sourceOf(row) {
    const inside = $(`audio-${row[KEY]}`);
    return inside ? `data:${inside.dataset.media};base64,${inside.textContent}` : row[LINK];
  }

  function play(place) {
    choose(place);
    const row = rows[view[place]];
    if (!playable(row)) return;
    if (sounding !== view[place]) {
      sounding = view[place];
      audio.src = sourceOf(row);
    }
    audio.play().catch((error) => {
      if (error.name !== "AbortError") $("now-error").textContent = `cannot be played: ${error.message}`;
    });
  }

  function toggle(place) {
    if (view[place] === sounding && !audio.paused) audio.pause();
    else play(place);
  }

  function playableFrom(place) {
    while (place < view.length && !playable(rows[view[place]])) place += 1;
    return place < view.length ? place : -1;
  }

  function setOnward(on) {
    onward = on;
    $("onward").setAttribute("aria-pressed", String(on));
  }

  function playFrom(place) {
    const first = playableFrom(Math.max(0, place));
    if (first < 0) return;
    setOnward(true);
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
    $("export").disabled = number === 0;
    $("export").textContent = number ? `Export ${number.toLocaleString()} ${number === 1 ? "mark" : "marks"}` : "Export marks";
    draw(false);
  }

  const flip = (name) => {
    if (chosen < 0) return;
    const row = rows[view[chosen]];
    if (row[LINK] !== null) setMark(row, { mark: markOf(row).mark === name ? "" : name });
  };

  for (const name of ["play", "pause", "timeupdate", "durationchange"]) audio.addEventListener(name, showTime);
  for (const name of ["play", "pause"]) audio.addEventListener(name, () => draw(false));
  audio.addEventListener("error", () => {
    $("now-error").textContent = "The audio cannot be played: is its file still where it was?";
    sounding = -1;
  });
  audio.addEventListener("ended", () => {
    const next = onward ? playableFrom(chosen + 1) : -1;
    if (next >= 0) play(next);
    else setOnward(false);
  });
  $("play").addEventListener("click", () => chosen >= 0 && toggle(chosen));
  $("previous").addEventListener("click", () => go(chosen - 1));
  $("next").addEventListener("click", () => go(chosen + 1));
  $("seek").addEventListener("input", () => {
    if (Number.isFinite(audio.duration)) audio.currentTime = audio.duration * Number($("seek").value) / 1000;
  });
  $("onward").addEventListener("click", () => (onward ? setOnward(false) : playFrom(chosen)));
  $("play-all").addEventListener("click", () => playFrom(0));
  $("good").addEventListener("click", () => flip("good"));
  $("retake").addEventListener("click", () => flip("retake"));
  $("note").addEventListener("input", () => chosen >= 0 && setMark(rows[view[chosen]], { note: $("note").value }));
  $("close").addEventListener("click", () => { audio.pause(); choose(-1); table.focus({ preventScroll: true }); });
  $("export").addEventListener("click", exportMarks);

  // A row that is gone to while another sounds takes over; otherwise it is only shown.
  function go(place) {
    if (place < 0 || place >= view.length) return;
    if (!audio.paused && playable(rows[view[place]])) play(place);
    else choose(place);
  }

  // Keys and pointers.

  pane.addEventListener("click", (event) => {
    const made = event.target.closest(".row");
    if (!made) return;
    const place = Number(made.dataset.place);
    if (event.target.closest("button.go")) toggle(place);
    else choose(place);
  });

  const leap = () => Math.max(1, Math.floor(innerHeight / height) - 3);
  const moves = {
    ArrowDown: () => chosen + 1, ArrowUp: () => chosen - 1, PageDown: () => chosen + leap(),
    PageUp: () => chosen - leap(), Home: () => 0, End: () => view.length - 1,
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
    if (key === "g" || key === "r") flip(key === "g" ? "good" : "retake");
    else if (key === "n" && chosen >= 0) $("note").focus();
    else if (key === "/") $("search").focus();
    else return;
    event.preventDefault();
  });

  $("filters").addEventListener("input", filter);
  $("filters").addEventListener("submit", (event) => event.preventDefault());
  addEventListener("scroll", () => draw(false), { passive: true });
  addEventListener("resize", () => draw(true));

  // On paper there is no scrolling: the rows stand one below the other.

  addEventListener("beforeprint", () => {
    printing = true;
    const number = Math.min(view.length, MOST_PRINTED);
    drawn.clear();
    pane.replaceChildren(...Array.from({ length: number }, (_, place) => {
      const made = rowElement(place);
      dress(made, place);
      return made;
    }));
    $("cut").hidden = number === view.length;
    $("cut").textContent = `${number.toLocaleString()} of ${view.length.toLocaleString()} rows are printed: filter them to see others.`;
  });
  addEventListener("afterprint", () => { printing = false; $("cut").hidden = true; draw(true); });

  table.classList.toggle("no-text", !about.texts);
  offerAll();
  filter();
  showMarks();
})();
