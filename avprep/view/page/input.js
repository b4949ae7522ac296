"use strict";
// What the user does with pointer, keys and controls; what follows from it is in main.js.

const DEGREES_PER_KEY = 5;
const CLICK_PIXELS = 5;

function listen() {
  listenToPointers();
  listenToKeys();
  listenToControls();
}

/** Dragging looks around, two fingers and the wheel zoom, a click opens a view. */
function listenToPointers() {
  const stage = byId("marks"), pointers = new Map();
  let moved = 0, spread = 0;
  const spreadOf = () => {
    const [a, b] = [...pointers.values()];
    return Math.hypot(a.x - b.x, a.y - b.y);
  };
  stage.addEventListener("pointerdown", (event) => {
    stage.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, { x: event.offsetX, y: event.offsetY });
    moved = 0;
    if (pointers.size === 2) spread = spreadOf();
  });
  stage.addEventListener("pointermove", (event) => {
    const last = pointers.get(event.pointerId);
    if (last === undefined) return;
    const [x, y] = [event.offsetX, event.offsetY];
    moved += Math.hypot(x - last.x, y - last.y);
    pointers.set(event.pointerId, { x, y });
    if (pointers.size === 2) {
      zoom(spread / Math.max(1, spreadOf()));
      spread = spreadOf();
    } else if (moved > CLICK_PIXELS) {
      // The picture is dragged along: to the right, one looks further to the left.
      const perPixel = camera.fov / Math.max(stage.clientWidth, stage.clientHeight);
      lookAt(camera.azimuth + (x - last.x) * perPixel, camera.elevation + (y - last.y) * perPixel);
    }
  });
  for (const name of ["pointerup", "pointercancel"]) {
    stage.addEventListener(name, (event) => {
      const isClick = pointers.delete(event.pointerId) && moved <= CLICK_PIXELS;
      if (name === "pointercancel" || !isClick || !byId("outlines").checked) return;
      const place = [event.offsetX / stage.clientWidth, event.offsetY / stage.clientHeight];
      const number = viewAt(camera.ray(...place));
      if (number !== null) openView(number);
    });
  }
  stage.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoom(Math.exp(Math.max(-100, Math.min(100, event.deltaY)) / 500));
  }, { passive: false });
}

function listenToKeys() {
  const turns = { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest("input[type=range], select") !== null) return; // with the same keys
    const turn = turns[event.key];
    if (turn !== undefined) {
      const [left, up] = turn.map((way) => way * DEGREES_PER_KEY);
      lookAt(camera.azimuth + left, camera.elevation + up);
    } else if (event.key === " " && event.target.closest("button, input") === null) {
      togglePlay();
    } else if (event.key === "+" || event.key === "-") {
      zoom(event.key === "+" ? 1 / 1.1 : 1.1);
    } else {
      return;
    }
    event.preventDefault();
  });
}

function listenToControls() {
  byId("play").addEventListener("click", togglePlay);
  byId("seek").addEventListener("input", (event) => seek(Number(event.target.value)));
  byId("volume").addEventListener("input", (event) => {
    player.volume.gain.value = Number(event.target.value);
  });
  byId("convention").addEventListener("change", (event) => {
    chooseConvention(Number(event.target.value));
  });
  byId("view-close").addEventListener("click", closeView);
  byId("view-audio").addEventListener("change", chooseAudio);
  for (const id of ["energy", "outlines", "labels-on"]) {
    byId(id).addEventListener("change", () => { state.stale = true; });
  }
  for (const name of ["loadeddata", "seeked"]) {
    panorama.addEventListener(name, () => { state.stale = true; });
  }
  for (const [video, what] of [[panorama, "the panorama"], [viewPanel.video, "a crop"]]) {
    video.addEventListener("error", () => {
      if (video.src) complain(`The browser cannot decode ${what}.`);
    });
  }
}
