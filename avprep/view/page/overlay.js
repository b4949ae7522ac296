"use strict";
// Lines and marks over the sphere, on a canvas of their own: outlines of the views with their
// numbers, events, the direction of most sound, and the middle of the screen.

const POINTS_PER_SIDE = 16;

/** A colour for a class number, the same everywhere on the page. */
function classColour(number, alpha = 1) {
  const hue = (((number * 137.508) % 360) + 360) % 360; // far apart for neighbouring numbers
  return `hsl(${hue} 85% 62% / ${alpha})`;
}

/** Directions along the outline of a view's crop, closed. */
function outlineOf(view) {
  const corners = [[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]];
  const places = corners.slice(1).flatMap(([x, y], side) => {
    const [fromX, fromY] = corners[side];
    return Array.from({ length: POINTS_PER_SIDE }, (_, i) => {
      const t = i / POINTS_PER_SIDE;
      return [fromX + t * (x - fromX), fromY + t * (y - fromY)];
    });
  });
  return [...places, [0, 0]].map(([x, y]) => viewRay(view, x, y));
}

class Overlay {
  constructor(canvas, views) {
    this.canvas = canvas;
    this.pen = canvas.getContext("2d");
    this.views = views;
    this.outlines = views.map(outlineOf);
  }

  /**
   * `marks` holds what is drawn: `views` (whether to draw them), `open` (the number of the opened
   * one or null), `events` (those that sound now) and `loudest` (a direction or null).
   */
  draw(camera, marks) {
    const { width, height } = this.canvas, pen = this.pen;
    const scale = window.devicePixelRatio || 1;
    const onScreen = (vector) => {
      const place = camera.place(vector);
      return place && [place[0] * width, place[1] * height];
    };
    pen.clearRect(0, 0, width, height);
    pen.font = `${14 * scale}px sans-serif`;
    pen.textAlign = "center";
    pen.textBaseline = "middle";
    if (marks.views) {
      this.views.forEach((view, number) => {
        const isOpen = number === marks.open;
        const colour = isOpen ? "#ffe14d" : "#fff";
        pen.lineWidth = (isOpen ? 3 : 1.5) * scale;
        this._line(this.outlines[number].map(onScreen), colour);
        this._text(onScreen(unitVector(view.azimuth, view.elevation)), `${number}`, colour);
      });
    }
    for (const event of marks.events) {
      const at = onScreen(unitVector(event.azimuth, event.elevation));
      if (at === null) continue;
      pen.lineWidth = 3 * scale;
      pen.setLineDash(event.visible === false ? [4 * scale, 4 * scale] : []);
      this._circle(at, 16 * scale, classColour(event.class));
      pen.setLineDash([]);
      this._text(at, eventName(event), "#fff");
    }
    if (marks.loudest !== null) {
      const at = onScreen(unitVector(marks.loudest.azimuth, marks.loudest.elevation));
      if (at !== null) {
        pen.lineWidth = 2 * scale;
        const arm = 9 * scale, [x, y] = at;
        this._line([[x - arm, y], [x + arm, y]], "#4de1ff");
        this._line([[x, y - arm], [x, y + arm]], "#4de1ff");
      }
    }
    pen.lineWidth = scale;
    this._circle([width / 2, height / 2], 3 * scale, "#fff");
  }

  /** A line through points, broken where one is behind the camera (null). */
  _line(points, colour) {
    this.pen.strokeStyle = colour;
    this.pen.beginPath();
    points.forEach((point, i) => {
      if (point === null) return;
      if (i === 0 || points[i - 1] === null) this.pen.moveTo(...point);
      else this.pen.lineTo(...point);
    });
    this.pen.stroke();
  }

  _circle([x, y], radius, colour) {
    this.pen.strokeStyle = colour;
    this.pen.beginPath();
    this.pen.arc(x, y, radius, 0, 2 * Math.PI);
    this.pen.stroke();
  }

  _text(at, text, colour) {
    if (at === null) return;
    this.pen.lineWidth = 3 * (window.devicePixelRatio || 1);
    this.pen.strokeStyle = "#000a";
    this.pen.strokeText(text, ...at);
    this.pen.fillStyle = colour;
    this.pen.fillText(text, ...at);
  }
}

/** "3" for a source of class 3, "3/1" for its source number 1. */
function eventName(event) {
  return event.source === null ? `${event.class}` : `${event.class}/${event.source}`;
}
