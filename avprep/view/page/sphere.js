"use strict";
// Draws an equirectangular frame as seen by a camera in the middle of the sphere, with WebGL, and
// over it the energy of the sound. Each pixel knows its direction; nothing is made of triangles.

const VERTICES = `#version 300 es
in vec2 corner;
out vec2 place;
void main() { place = corner; gl_Position = vec4(corner, 0.0, 1.0); }`;

const PIXELS = `#version 300 es
precision highp float;
in vec2 place;                 // -1 to 1, to the right and up
out vec4 colour;
uniform mat3 toWorld;
uniform vec2 halfTangents;
uniform sampler2D frame;
uniform mat4 covariance;       // of W, Y, Z, X
uniform float peak;            // power of the beam where it is greatest; 0: no overlay

vec3 heat(float t) {           // black, red, yellow, white
  return clamp(vec3(3.0 * t, 3.0 * t - 1.0, 3.0 * t - 2.0), 0.0, 1.0);
}

void main() {
  vec3 d = normalize(toWorld * vec3(1.0, -place.x * halfTangents.x, place.y * halfTangents.y));
  float azimuth = atan(d.y, d.x), elevation = asin(clamp(d.z, -1.0, 1.0));
  // The middle of the frame is azimuth 0, and azimuth grows to its left.
  vec2 at = vec2(0.5 - azimuth / 6.283185307, 0.5 - elevation / 3.141592654);
  vec3 shown = texture(frame, at).rgb;
  if (peak > 0.0) {
    vec4 beam = vec4(1.0, 3.0 * d.y, 3.0 * d.z, 3.0 * d.x) / 4.0;
    float level = clamp(dot(beam, covariance * beam) / peak, 0.0, 1.0);
    shown = mix(shown, heat(level * level), 0.65 * smoothstep(0.3, 1.0, level));
  }
  colour = vec4(shown, 1.0);
}`;

class SphereView {
  /** Throws an Error where the browser has no WebGL 2. */
  constructor(canvas) {
    this.canvas = canvas;
    const gl = canvas.getContext("webgl2", { antialias: false });
    if (gl === null) throw new Error("this browser has no WebGL 2, which draws the sphere");
    this.gl = gl;
    const program = gl.createProgram();
    for (const [kind, text] of [[gl.VERTEX_SHADER, VERTICES], [gl.FRAGMENT_SHADER, PIXELS]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, text);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
    }
    gl.linkProgram(program);
    if (!gl.getProgramParameter(program, gl.LINK_STATUS)) {
      throw new Error(`the sphere's shaders do not compile: ${gl.getProgramInfoLog(program)}`);
    }
    gl.useProgram(program);
    this.at = Object.fromEntries(["toWorld", "halfTangents", "covariance", "peak"].map(
      (name) => [name, gl.getUniformLocation(program, name)]));
    gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
    gl.bufferData(gl.ARRAY_BUFFER, new Float32Array([-1, -1, 3, -1, -1, 3]), gl.STATIC_DRAW);
    const corner = gl.getAttribLocation(program, "corner");
    gl.enableVertexAttribArray(corner);
    gl.vertexAttribPointer(corner, 2, gl.FLOAT, false, 0, 0);
    gl.bindTexture(gl.TEXTURE_2D, gl.createTexture());
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.LINEAR);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MAG_FILTER, gl.LINEAR);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_WRAP_S, gl.REPEAT); // over the seam behind
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_WRAP_T, gl.CLAMP_TO_EDGE);
    const grey = new Uint8Array([60, 60, 60, 255]);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, 1, 1, 0, gl.RGBA, gl.UNSIGNED_BYTE, grey);
  }

  /** Takes over the frame that a video shows now. */
  load(video) {
    const gl = this.gl;
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, gl.RGBA, gl.UNSIGNED_BYTE, video);
  }

  /** Draws; `energy` is null or { covariance (4×4), power }, the greatest power of the beam. */
  draw(camera, energy) {
    const gl = this.gl;
    gl.viewport(0, 0, this.canvas.width, this.canvas.height);
    // WebGL wants columns: the rows of the camera's rotation are the columns of its inverse.
    gl.uniformMatrix3fv(this.at.toWorld, false, camera.rotation.flat());
    gl.uniform2fv(this.at.halfTangents, camera.halfTangents);
    gl.uniform1f(this.at.peak, energy === null ? 0 : 1);
    if (energy !== null) {
      const relative = energy.covariance.flat().map((value) => value / energy.power);
      gl.uniformMatrix4fv(this.at.covariance, false, relative);
    }
    gl.drawArrays(gl.TRIANGLES, 0, 3);
  }

  /** Red, green and blue at a place of the canvas (0 to 1 from its left upper corner); to be called
   * right after `draw`, since browsers clear the canvas once it is shown. */
  colourAt(x, y) {
    const gl = this.gl, pixel = new Uint8Array(4);
    const column = Math.min(this.canvas.width - 1, Math.floor(x * this.canvas.width));
    const row = Math.min(this.canvas.height - 1, Math.floor((1 - y) * this.canvas.height));
    gl.readPixels(column, row, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, pixel);
    return [...pixel.slice(0, 3)];
  }
}
