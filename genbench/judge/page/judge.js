// The page of trials. What the server has not confirmed is not shown as done; an answer is sent until it is confirmed.
"use strict";

const desk = document.body;
const { csrf, mode } = desk.dataset;
const [size, exposure, every, colour] = ["size", "exposure", "every", "colour"].map((name) => Number(desk.dataset[name]));
const find = (id) => document.getElementById(id);
const [bar, count, undo, trial, stage, answers, rest, end, status] =
  ["bar", "count", "undo", "trial", "stage", "answers", "rest", "end", "status"].map(find);
const canvases = [...document.querySelectorAll("canvas")];
const FIXATION = 500, BLANK = 150, MASK = 200, QUICKEST = 150, LIMIT = { "real-or-fake": 448, "which-is-better": 400 };

let state = null; // as the server last told it
let shown = null; // {bitmaps, at, shownMs}: the trial that waits for an answer
let rested = 0; // number of answers at the last break
let turn = 0; // each new screen ends what an earlier one was still waiting for
const bitmaps = new Map(); // name of a picture -> promise of its bitmap

const pause = (ms) => new Promise((done) => setTimeout(done, ms));
const frame = () => new Promise((done) => requestAnimationFrame(done));

function say(text, bad = false) {
  status.textContent = text;
  status.classList.toggle("problem", bad);
}

async function talk(path, body) {
  // One request, repeated until there is an answer: all of them may be repeated without harm.
  const options = body === undefined ? {} : {
    method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json", "X-CSRF-Token": csrf },
  };
  for (let wait = 500; ; wait = Math.min(2 * wait, 5000)) {
    try {
      const answer = await fetch(path, { ...options, cache: "no-store", credentials: "same-origin" });
      if (answer.status === 401) { location.assign("/"); await new Promise(() => {}); }
      if (answer.ok || answer.status === 409) { say(""); return await answer.json(); }
      if (answer.status < 500) { say("This page is no longer valid: please load it again.", true); await new Promise(() => {}); }
    } catch { /* no connection: again */ }
    say(body === undefined ? "The server does not answer. Trying again …" : "Not saved yet: the server does not answer. Trying again …", true);
    await pause(wait);
  }
}

async function bitmap(name) {
  for (let wait = 500; ; wait = Math.min(2 * wait, 5000)) {
    try {
      const answer = await fetch(`/picture/${name}`, { cache: "no-store", credentials: "same-origin" });
      if (answer.ok) return await createImageBitmap(await answer.blob(), { colorSpaceConversion: "none" });
    } catch { /* no connection: again */ }
    await pause(wait);
  }
}

function fetchAhead() {
  const coming = state.next.flatMap((one) => one.pictures);
  for (const name of bitmaps.keys()) if (!coming.includes(name)) bitmaps.delete(name);
  for (const name of coming) if (!bitmaps.has(name)) bitmaps.set(name, bitmap(name));
}

function fit() {
  // The largest whole number of device pixels for a pixel, nearest neighbour, the same for every image.
  const style = getComputedStyle(stage), ratio = window.devicePixelRatio || 1, tall = style.flexDirection === "column";
  const [across, down] = tall ? [1, canvases.length] : [canvases.length, 1];
  const share = (whole, before, after, gap, parts) => (whole - parseFloat(before) - parseFloat(after) - (parseFloat(gap) || 0) * (parts - 1)) / parts;
  const width = share(stage.clientWidth, style.paddingLeft, style.paddingRight, style.columnGap, across);
  const height = share(stage.clientHeight, style.paddingTop, style.paddingBottom, style.rowGap, down);
  const room = Math.min(width, height, LIMIT[mode], Math.max(256, 16 * size));
  const scale = Math.max(1, Math.floor((room * ratio) / size));
  for (const canvas of canvases) {
    canvas.width = canvas.height = size * scale;
    canvas.style.width = canvas.style.height = `${(size * scale) / ratio}px`;
  }
}

function draw(what) {
  canvases.forEach((canvas, side) => {
    const context = canvas.getContext("2d");
    context.imageSmoothingEnabled = false;
    context.clearRect(0, 0, canvas.width, canvas.height);
    if (what[side]) context.drawImage(what[side], 0, 0, canvas.width, canvas.height);
  });
}

function cross() {
  for (const canvas of canvases) {
    const context = canvas.getContext("2d"), middle = canvas.width / 2, arm = canvas.width / 24, thick = Math.max(2, canvas.width / 120);
    context.clearRect(0, 0, canvas.width, canvas.height);
    context.fillStyle = getComputedStyle(desk).getPropertyValue("--faint");
    context.fillRect(middle - arm, middle - thick / 2, 2 * arm, thick);
    context.fillRect(middle - thick / 2, middle - arm, thick, 2 * arm);
  }
}

function scramble() {
  const pixels = new ImageData(size, size);
  for (let at = 0; at < pixels.data.length; at += 4) {
    const level = Math.random() * 256;
    for (let channel = 0; channel < 3; channel++) pixels.data[at + channel] = colour ? Math.random() * 256 : level;
    pixels.data[at + 3] = 255;
  }
  return createImageBitmap(pixels);
}

function screen(which) {
  for (const one of [trial, rest, end]) one.hidden = one !== which;
}

async function present() {
  const mine = ++turn, late = () => mine !== turn;
  shown = null;
  bar.max = state.total;
  bar.value = state.done;
  count.textContent = `${state.done} of ${state.total}`;
  undo.hidden = !state.undo;
  fetchAhead();
  if (state.next.length === 0) { screen(end); return; }
  if (state.done && state.done % every === 0 && state.done !== rested) {
    find("rest-count").textContent = `${state.done} of ${state.total} are done.`;
    screen(rest);
    return;
  }
  screen(trial);
  fit();
  answers.classList.add("waiting");
  draw([]);
  const mask = exposure ? await scramble() : null;
  if (exposure) cross();
  const [pictures] = await Promise.all([Promise.all(state.next[0].pictures.map((name) => bitmaps.get(name))), pause(exposure ? FIXATION : BLANK)]);
  if (late()) return;
  await frame();
  draw(pictures);
  const began = await frame(); // what was drawn before this frame is on the screen now
  if (late()) return;
  for (const button of answers.children) button.classList.remove("chosen");
  answers.classList.remove("waiting");
  shown = { pictures, at: began, ms: null };
  if (!exposure) return;
  let now = began;
  while (now - began < exposure - 4) now = await frame();
  if (late()) return;
  const own = shown;
  own.pictures = [mask]; // before ms is told: from then on a resize draws again what is there
  draw(own.pictures);
  own.ms = Math.round((await frame()) - began);
  await pause(MASK);
  if (!late()) { own.pictures = []; draw([]); }
}

async function give(answer) {
  if (!shown || trial.hidden) return;
  const { at, ms } = shown, now = performance.now();
  if (now - at < QUICKEST) return; // the second half of a double click: nobody has seen the picture yet
  turn++; // a running exposure ends here
  shown = null;
  answers.classList.add("waiting");
  for (const button of answers.children) button.classList.toggle("chosen", button.dataset.answer === answer);
  const vote = { trial: state.next[0].trial, attempt: state.attempt, answer, ms: Math.max(0, Math.round(now - at)) };
  if (exposure) { vote.shown_ms = ms ?? vote.ms; draw([]); }
  state = await talk("/vote", vote);
  if (state.problem) say(state.problem, true);
  await present();
}

async function takeBack() {
  if (!state || !state.undo || undo.disabled || (!trial.hidden && !shown)) return;
  undo.disabled = true;
  turn++;
  shown = null;
  state = await talk("/undo", state.undo);
  undo.disabled = false;
  rested = state.done;
  await present();
}

async function goOn() {
  if (!rest.hidden) { rested = state.done; await present(); }
  else if (!end.hidden) { end.hidden = true; await talk("/finish", {}); location.assign("/thanks"); }
}

for (const button of answers.children) button.addEventListener("click", () => { button.blur(); give(button.dataset.answer); });
for (const canvas of canvases) {
  canvas.addEventListener("contextmenu", (event) => event.preventDefault());
  if (canvas.dataset.answer) canvas.addEventListener("click", () => give(canvas.dataset.answer));
}
for (const button of document.querySelectorAll("[data-go]")) button.addEventListener("click", goOn);
undo.addEventListener("click", () => { undo.blur(); takeBack(); });
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const button = [...answers.children].find((one) => one.dataset.key === event.key);
  const act = button && !trial.hidden ? () => give(button.dataset.answer)
    : event.key === "Backspace" ? takeBack
    : event.key === "Enter" && trial.hidden && event.target === document.body ? goOn : null;
  if (!act) return;
  event.preventDefault();
  if (!event.repeat) act();
});
document.addEventListener("visibilitychange", () => {
  // A page that nobody sees draws no frames: the picture would still be there when they come back.
  if (!document.hidden || !exposure || !shown || shown.ms !== null) return;
  turn++;
  shown.ms = Math.round(performance.now() - shown.at);
  shown.pictures = [];
  draw([]);
});
new ResizeObserver(() => {
  if (trial.hidden || !shown || (exposure && shown.ms === null)) return;
  fit();
  draw(shown.pictures);
}).observe(stage);
talk("/state").then((found) => { state = found; return present(); });
