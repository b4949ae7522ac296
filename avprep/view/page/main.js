"use strict";
// Puts the parts together: reads the data, loads the files, and draws whenever something changed.

const DATA = JSON.parse(byId("sample").textContent);
const NARROWEST = 25, WIDEST = 130; // degrees across
const LATE_SECONDS = 0.2; // a video that is so far off jumps; one that is less off runs faster

const camera = new Camera();
const player = new Player(DATA.duration);
const panorama = byId("panorama");
const overlay = new Overlay(byId("marks"), DATA.views);
const viewPanel = new ViewPanel(DATA.crop);
const state = {
  sphere: null, // null where the browser cannot draw it
  field: null, // the AudioBuffer of the field
  blocks: [], // its covariances
  energy: [], // per block, { covariance, loudest }, as far as computed for the chosen convention
  choice: 0, // of DATA.conventions.choices
  open: null, // number of the opened view
  events: [], // those that sound now
  stale: true, // the picture has to be drawn again
};

// Files come as data: addresses or from the server; blobs make one of both.

async function fetchFile(name) {
  const answer = await fetch(DATA.files[name]);
  if (!answer.ok) throw new Error(`${name} cannot be loaded (${answer.status})`);
  return answer;
}

const addresses = new Map(), buffers = new Map();

async function videoAddress(name) {
  if (!addresses.has(name)) {
    const blob = await (await fetchFile(name)).blob();
    addresses.set(name, URL.createObjectURL(new Blob([blob], { type: "video/mp4" })));
  }
  return addresses.get(name);
}

async function loadAudio(name) {
  if (!buffers.has(name)) {
    // Decoded audio is large: that of the field is kept, and of the views the last one's.
    for (const other of buffers.keys()) {
      if (DATA.field === null || other !== DATA.field.file) buffers.delete(other);
    }
    const content = await (await fetchFile(name)).arrayBuffer();
    buffers.set(name, await player.context.decodeAudioData(content));
  }
  return buffers.get(name);
}

// Sound.

/** From stored channels to the field, as the chosen convention reads it. */
function fieldMatrix(audio) {
  return product(DATA.conventions.choices[state.choice].matrix, audio.matrix);
}

/** The audio that belongs to what is shown, and the rotation that brings its front to the front:
 * the opened view's, or the field as the head is turned. */
function currentAudio() {
  const view = state.open === null ? null : DATA.views[state.open];
  if (view !== null && view.audio !== null && byId("view-audio").checked) {
    return { audio: view.audio, rotation: viewRotation(view.azimuth, view.elevation) };
  }
  if (DATA.field !== null) return { audio: DATA.field, rotation: camera.rotation };
  return { audio: DATA.views.length ? DATA.views[0].audio : null, rotation: null };
}

/** From the stored channels to the field as the head hears it; null for what is no field. */
function headMatrix() {
  const { audio, rotation } = currentAudio();
  if (audio === null || audio.matrix === null) return null;
  return product(foaMatrix(rotation), fieldMatrix(audio));
}

function turnHead() {
  const matrix = headMatrix();
  if (matrix !== null) player.binaural.turn(matrix);
}

async function chooseAudio() {
  const { audio } = currentAudio();
  const buffer = audio === null ? null : await loadAudio(audio.file);
  if (audio !== currentAudio().audio) return; // another one was chosen meanwhile
  turnHead();
  if (buffer !== player.buffer) player.setAudio(buffer);
}

/** Covariance at a time, and the loudest direction (null: there is none); null without a field. */
function energyAt(time) {
  const number = Math.min(Math.floor(time / BLOCK_SECONDS), state.blocks.length - 1);
  if (number < 0) return null;
  if (state.energy[number] === undefined) {
    const matrix = fieldMatrix(DATA.field);
    const covariance = product(matrix, state.blocks[number], transposed(matrix));
    state.energy[number] = { covariance, loudest: loudest(covariance) };
  }
  return state.energy[number];
}

function loudestInWords({ covariance, loudest: direction }) {
  if (isSilent(covariance)) return "silence";
  if (direction === null) return "sound without a direction";
  return `loudest at azimuth ${direction.azimuth.toFixed(0)}°, `
    + `elevation ${direction.elevation.toFixed(0)}°`;
}

// What the user does.

function lookAt(azimuth, elevation) {
  camera.lookAt(azimuth, elevation);
  turnHead();
  state.stale = true;
}

function zoom(factor) {
  camera.fov = Math.max(NARROWEST, Math.min(WIDEST, camera.fov * factor));
  state.stale = true;
}

function chooseConvention(number) {
  state.choice = number;
  state.energy = [];
  turnHead();
  state.stale = true;
}

async function openView(number) {
  const view = DATA.views[number];
  state.open = number;
  lookAt(view.azimuth, view.elevation);
  try {
    const [address, ...contents] = await Promise.all([
      videoAddress(view.video),
      ...view.maps.map(async (map) => (await fetchFile(map.file)).arrayBuffer()),
    ]);
    if (state.open !== number) return;
    viewPanel.open(number, view, address, view.maps.map(
      (map, i) => ({ time: map.time, classes: new Uint8Array(contents[i]) })));
    await chooseAudio();
  } catch (error) {
    complain(`View ${number}: ${error.message}`);
  }
}

function closeView() {
  state.open = null;
  viewPanel.close();
  state.stale = true;
  return chooseAudio();
}

/** The number of the view that shows a direction nearest to its middle; null if none does. */
function viewAt(vector) {
  const length = Math.hypot(...vector);
  const nearness = DATA.views.map((view) => {
    const middle = unitVector(view.azimuth, view.elevation);
    return isInView(view, vector) ? transformed([middle], vector)[0] / length : -2;
  });
  const best = Math.max(-2, ...nearness);
  return best === -2 ? null : nearness.indexOf(best);
}

async function togglePlay() {
  if (player.playing) player.pause();
  else await player.play();
  if (player.silent) complain("The browser gives no sound here; the picture plays without it.");
  byId("play").textContent = player.playing ? "Pause" : "Play";
  state.stale = true;
}

function seek(time) {
  player.seek(time);
  state.stale = true;
}

// Time: everything follows the player.

/** Events of each step of their clock, by its number. */
const eventsByStep = new Map();
for (const event of DATA.events) {
  const step = Math.round(event.time / DATA.eventStep);
  if (!eventsByStep.has(step)) eventsByStep.set(step, []);
  eventsByStep.get(step).push(event);
}

function eventsAt(time) {
  return eventsByStep.get(Math.floor(time / DATA.eventStep + 1e-6)) || [];
}

function follow(video, time) {
  if (!video.src || video.readyState === 0) return;
  const frame = 0.5 / DATA.fps; // the middle of a frame is never between two
  const late = time + frame - video.currentTime;
  if (player.playing) {
    if (Math.abs(late) > LATE_SECONDS && !video.seeking) video.currentTime = time + frame;
    video.playbackRate = 1 + Math.max(-0.2, Math.min(0.2, late));
    if (video.paused) video.play().catch(() => {});
  } else {
    if (!video.paused) video.pause();
    // Not at 0 either: a video that never moved has no frame yet that could be drawn.
    if (Math.abs(late) > 0.9 * frame && !video.seeking) video.currentTime = time + frame;
  }
}

function resize() {
  const box = byId("stage").getBoundingClientRect(), scale = window.devicePixelRatio || 1;
  for (const canvas of [byId("sphere"), byId("marks")]) {
    const [width, height] = [Math.round(box.width * scale), Math.round(box.height * scale)];
    if (canvas.width !== width || canvas.height !== height) {
      [canvas.width, canvas.height] = [width, height];
      state.stale = true;
    }
  }
  camera.aspect = box.width / Math.max(1, box.height);
}

function draw() {
  const time = player.now();
  const energy = energyAt(time);
  const peak = byId("energy").checked && energy !== null ? energy.loudest : null;
  if (state.sphere !== null) {
    if (panorama.readyState >= 2) state.sphere.load(panorama);
    state.sphere.draw(camera, peak === null ? null : { covariance: energy.covariance, power: peak.power });
  }
  const events = eventsAt(time);
  if (events !== state.events) showEvents(events, lookAt);
  state.events = events;
  overlay.draw(camera, {
    views: byId("outlines").checked, open: state.open, events, loudest: peak,
  });
  viewPanel.showLabels(time);
  const [azimuth, elevation] = [camera.azimuth, camera.elevation].map((v) => v.toFixed(0));
  byId("direction").textContent = `azimuth ${azimuth}°, elevation ${elevation}°`;
  byId("loudest").hidden = DATA.field === null;
  byId("loudest").textContent = energy === null ? "" : loudestInWords(energy);
  byId("time").textContent = `${time.toFixed(1)} / ${DATA.duration.toFixed(1)} s`;
  byId("seek").value = `${time}`;
}

function everyFrame() {
  if (player.playing && player.now() >= DATA.duration) player.seek(0);
  const time = Math.min(player.now(), DATA.duration);
  follow(panorama, time);
  follow(viewPanel.video, time);
  resize();
  if (player.playing || state.stale) {
    state.stale = false;
    draw();
  }
  requestAnimationFrame(everyFrame);
}

// Start.

async function start() {
  fillPanel(DATA, { openView });
  byId("seek").max = `${DATA.duration}`;
  byId("play").disabled = false;
  listen();
  resize();
  try {
    state.sphere = new SphereView(byId("sphere"));
  } catch (error) {
    complain(error.message);
  }
  requestAnimationFrame(everyFrame);
  const pictures = videoAddress(DATA.panorama).then((address) => new Promise((resolve) => {
    for (const name of ["seeked", "error"]) panorama.addEventListener(name, resolve, { once: true });
    panorama.src = address;
  }));
  const audio = chooseAudio().then(async () => {
    if (DATA.field === null) return;
    state.blocks = covariances(await weighted(await loadAudio(DATA.field.file)));
  });
  for (const done of await Promise.allSettled([pictures, audio])) {
    if (done.status === "rejected") complain(`Something cannot be loaded: ${done.reason.message}`);
  }
  state.stale = true;
}

const ready = start();
