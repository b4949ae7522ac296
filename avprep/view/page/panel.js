"use strict";
// What stands beside the sphere: lists, notes, and the opened view with its crop and label map.
// All words of the data reach the page as text nodes, never as HTML.

function element(name, text = "", children = []) {
  const made = document.createElement(name);
  made.textContent = text;
  made.append(...children);
  return made;
}

function byId(id) {
  return document.getElementById(id);
}

function degrees(value) {
  return `${value.toFixed(0)}°`;
}

/** Fills in all that does not change while the clip plays. */
function fillPanel(data, actions) {
  document.title = `${data.key} – avprep view`;
  byId("key").textContent = data.key;
  for (const [name, value] of data.facts) {
    byId("facts").append(element("dt", name), element("dd", value));
  }
  byId("notes").append(...data.notes.map((note) => element("li", note)));
  data.views.forEach((view, number) => {
    const where = `${degrees(view.azimuth)}, ${degrees(view.elevation)}`;
    const size = `${degrees(view.hfov)}×${degrees(view.vfov)}`;
    const button = element("button", `${number}: (${where}) ${size}`);
    button.type = "button";
    button.addEventListener("click", () => actions.openView(number));
    byId("views").append(element("li", "", [button]));
  });
  const conventions = byId("convention");
  data.conventions.choices.forEach((choice, number) => {
    const option = element("option", choice.title);
    option.value = `${number}`;
    conventions.append(option);
  });
  byId("convention-note").textContent = data.conventions.note;
  byId("events-part").hidden = data.events.length === 0;
  for (const id of ["convention-part", "energy-part"]) byId(id).hidden = data.field === null;
}

/** The events that sound now, each with the direction in which to look. */
function showEvents(events, lookAt) {
  byId("events").replaceChildren(...events.map((event) => {
    const parts = [`class ${event.class}`];
    if (event.source !== null) parts.push(`source ${event.source}`);
    parts.push(`(${degrees(event.azimuth)}, ${degrees(event.elevation)})`);
    if (event.distance !== null) parts.push(`${event.distance.toFixed(1)} m`);
    if (event.visible === false) parts.push("out of sight");
    const button = element("button", parts.join(", "));
    button.type = "button";
    button.style.borderLeftColor = classColour(event.class);
    button.addEventListener("click", () => lookAt(event.azimuth, event.elevation));
    return element("li", "", [button]);
  }));
}

/** A fault that the user should know of; the page goes on. */
function complain(sentence) {
  byId("faults").append(element("li", sentence));
}

/** The crop of an opened view, with its label map over it. */
class ViewPanel {
  constructor(size) {
    this.part = byId("view-part");
    this.video = byId("crop");
    this.canvas = byId("labels");
    [this.canvas.width, this.canvas.height] = [size.width, size.height];
    this.maps = [];
    this.shown = null;
  }

  /** `maps` are { time, classes }, classes one number (0 to 255) for each pixel. */
  open(number, view, address, maps) {
    const aspect = Math.tan((view.hfov * DEGREE) / 2) / Math.tan((view.vfov * DEGREE) / 2);
    byId("crop-frame").style.aspectRatio = `${aspect}`;
    byId("view-name").textContent = `View ${number}`;
    this.maps = maps;
    this.shown = null;
    this.video.src = address;
    this.part.hidden = false;
    byId("labels-part").hidden = maps.length === 0;
    this.showLabels(0);
  }

  close() {
    this.part.hidden = true;
    this.video.removeAttribute("src");
    this.video.load();
    this.maps = [];
  }

  /** Draws the last label map at or before a time; none before the first. */
  showLabels(time) {
    const map = this.maps.filter((one) => one.time <= time + 1e-6).pop() || null;
    const wanted = byId("labels-on").checked ? map : null;
    if (wanted === this.shown && this.maps.length) return;
    this.shown = wanted;
    const pen = this.canvas.getContext("2d");
    pen.clearRect(0, 0, this.canvas.width, this.canvas.height);
    const classes = wanted === null ? [] : [...new Set(wanted.classes)].sort((a, b) => a - b);
    if (wanted !== null) {
      const image = pen.createImageData(this.canvas.width, this.canvas.height);
      wanted.classes.forEach((number, i) => image.data.set(labelColour(number), 4 * i));
      pen.putImageData(image, 0, 0);
    }
    byId("legend").replaceChildren(...classes.map((number) => {
      const name = element("li", `class ${number}`);
      const [red, green, blue, opacity] = labelColour(number);
      name.style.borderLeftColor = `rgb(${red} ${green} ${blue} / ${opacity ? 1 : 0})`;
      return name;
    }));
  }
}

/** Red, green, blue and opacity of a class in label maps; 0 is mostly the ground, and clear. */
function labelColour(number) {
  const hue = ((number * 137.508) % 360) / 60;
  const channel = (n) => Math.round(255 * (0.25 + 0.75 * Math.max(0, Math.min(1, n))));
  const rgb = [Math.abs(hue - 3) - 1, 2 - Math.abs(hue - 2), 2 - Math.abs(hue - 4)].map(channel);
  return [...rgb, number === 0 ? 0 : 130];
}
