// The player: one audio element for all rows, and the marks of the chosen row.

const audio = $("audio");
let sounding = -1; // number of the row
let continuous = false;
const writing = () => document.activeElement === $("note");

// Shows the row in the player. `scroll` brings it into view.
function choose(index, scroll = true) {
  chosen = index;
  const row = chosenRow();
  $("player").classList.toggle("empty", row === null);
  if (row !== null) {
    const words = [row[ID], `row ${row[NUMBER]}`, voiceOf(row), row[TAKE] > 1 ? `take ${row[TAKE]}` : ""];
    $("now").textContent = [...words, about.states[row[STATE]][1]].filter(Boolean).join(" · ");
    $("now-text").textContent = row[TEXT];
    $("now-error").textContent = reasonOf(row);
    if (!writing()) $("note").value = markOf(row).note;
    $("play").disabled = !playable(row);
    $("file").hidden = !hasAudio(row);
    if (hasAudio(row)) $("file").href = row[LINK];
    if (scroll) scrollToRow(index);
  }
  showButtons();
  draw(false);
}

// Selects a row; if another one is playing, plays this one instead.
function go(index) {
  if (index < 0 || index >= view.length) return;
  if (!audio.paused && playable(rows[view[index]])) play(index);
  else choose(index);
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
  if (index < 0 || index >= view.length) return;
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

function playNext() {
  const next = continuous ? playableFrom(chosen + 1) : -1;
  if (next >= 0) play(next);
  else setContinuous(false);
}

function showTime() {
  const length = Number.isFinite(audio.duration) ? audio.duration : 0;
  $("clock").textContent = `${clock(audio.currentTime)} / ${clock(length)}`;
  $("seek").value = length ? String(1000 * audio.currentTime / length) : "0";
  $("seek").setAttribute("aria-valuetext", $("clock").textContent);
  $("play").textContent = audio.paused ? "▶" : "❚❚";
  $("play").setAttribute("aria-label", audio.paused ? "Play" : "Pause");
}

for (const name of ["play", "pause", "timeupdate", "durationchange"]) audio.addEventListener(name, showTime);
for (const name of ["play", "pause"]) audio.addEventListener(name, () => draw(false));
audio.addEventListener("error", () => {
  $("now-error").textContent = "Cannot play the audio. Was its file moved or deleted?";
  sounding = -1;
});
// While a note is being written, the next row waits: the note belongs to the chosen row.
audio.addEventListener("ended", () => { if (!writing()) playNext(); });

$("play").addEventListener("click", () => toggle(chosen));
$("previous").addEventListener("click", () => go(chosen - 1));
$("next").addEventListener("click", () => go(chosen + 1));
$("seek").addEventListener("input", () => {
  if (Number.isFinite(audio.duration)) audio.currentTime = audio.duration * Number($("seek").value) / 1000;
});
$("onward").addEventListener("click", () => (continuous ? setContinuous(false) : playFrom(chosen)));
$("close").addEventListener("click", () => {
  audio.pause();
  choose(-1);
  toRows();
});

// Marks of the chosen row.

function toggleMark(name) {
  const row = chosenRow();
  if (row === null) return say("Choose a row to mark first.");
  if (!hasAudio(row)) return say(`${row[ID]} has no audio to mark.`);
  const removed = markOf(row).mark === name;
  const words = removed ? `${row[ID]}: mark “${name}” removed` : `${row[ID]}: marked “${name}”`;
  return setMark(row, { mark: removed ? "" : name }, words);
}

function showButtons() {
  const row = chosenRow();
  for (const name of ["good", "retake"]) {
    $(name).setAttribute("aria-pressed", String(row !== null && markOf(row).mark === name));
    $(name).disabled = row === null || !hasAudio(row);
  }
}

function showMarks() {
  const number = markedRows().length;
  $("export").disabled = !number;
  $("export").textContent = number ? `Export ${counted(number, "mark")}` : "Export marks";
  showButtons();
  draw(false);
}

$("good").addEventListener("click", () => toggleMark("good"));
$("retake").addEventListener("click", () => toggleMark("retake"));
$("export").addEventListener("click", () => {
  exportMarks();
  $("about-marks").hidden = false; // from now on only: before, it would move the rows under the pointer
});

// The note is stored as it is typed. Enter keeps it, Esc brings the former one back; both return to the rows.

let formerNote = "";

function editNote() {
  if (chosen < 0) return say("Choose a row for the note first.");
  return $("note").focus({ preventScroll: true });
}

$("note").addEventListener("focus", () => { formerNote = $("note").value; });
$("note").addEventListener("input", () => setMark(chosenRow(), { note: $("note").value.trim() }));
$("note").addEventListener("blur", () => { if (!writing() && continuous && audio.ended) playNext(); });
$("note").addEventListener("keydown", (event) => {
  if (event.isComposing || !["Enter", "Escape"].includes(event.key)) return;
  event.preventDefault();
  event.stopPropagation();
  const row = chosenRow(), note = event.key === "Enter" ? $("note").value.trim() : formerNote;
  $("note").value = note;
  setMark(row, { note }, note === formerNote ? "" : `${row[ID]}: note ${note ? "saved" : "removed"}`);
  toRows();
});
