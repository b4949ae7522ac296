"use strict";
// From four ambisonic channels to two ears, and the clock that everything follows.
//
// The field is decoded to eight virtual loudspeakers at the corners of a cube, each of which the
// browser's own head-related transfer functions (PannerNode, "HRTF") bring to both ears. The head
// stays where it is: the field turns.

const SPEAKERS = [1, -1].flatMap((x) =>
  [1, -1].flatMap((y) => [1, -1].map((z) => [x, y, z].map((v) => v / Math.sqrt(3)))));
const TURN_SECONDS = 0.02; // gains move this slowly, since jumps are heard as clicks

/**
 * Weights (8×4) of W, Y, Z, X for each loudspeaker: the max-rE decoder of first order for a regular
 * layout, (W + √3 d·(X, Y, Z)) / 8 for a loudspeaker in direction d (J. Daniel, Représentation de
 * champs acoustiques, 2001; SN3D weights).
 */
const DECODER = SPEAKERS.map(([x, y, z]) => [1, y, z, x].map((v, i) => (v * (i ? Math.sqrt(3) : 1)) / 8));

/**
 * Builds the graph from a four-channel node to `destination`, for an AudioContext or an
 * OfflineAudioContext. `turn(matrix)` sets the matrix (4×4) that is applied to the channels before
 * they are decoded: conversion, convention and head together.
 */
function buildBinaural(context, destination) {
  const input = new ChannelSplitterNode(context, { numberOfOutputs: 4 });
  const gains = SPEAKERS.map(([x, y, z]) => {
    // Web Audio has +X right, +Y up and -Z front.
    const panner = new PannerNode(context, {
      panningModel: "HRTF", distanceModel: "linear", rolloffFactor: 0,
      positionX: -y, positionY: z, positionZ: -x,
    });
    panner.connect(destination);
    return [0, 1, 2, 3].map((channel) => {
      const gain = new GainNode(context, { gain: 0 });
      input.connect(gain, channel).connect(panner);
      return gain.gain;
    });
  });
  function turn(matrix, smoothly = true) {
    product(DECODER, matrix).forEach((row, speaker) => row.forEach((weight, channel) => {
      const gain = gains[speaker][channel];
      if (smoothly) {
        gain.cancelScheduledValues(context.currentTime);
        gain.setTargetAtTime(weight, context.currentTime, TURN_SECONDS);
      } else {
        gain.value = weight;
      }
    }));
  }
  return { input, turn };
}

/** What the ears hear of a four-channel AudioBuffer through `matrix`: an AudioBuffer of two. */
async function renderBinaural(buffer, matrix) {
  const context = new OfflineAudioContext(2, buffer.length, buffer.sampleRate);
  const graph = buildBinaural(context, context.destination);
  graph.turn(matrix, false);
  const source = new AudioBufferSourceNode(context, { buffer });
  source.connect(graph.input);
  source.start();
  return context.startRendering();
}

/**
 * The clock: plays one AudioBuffer at a time, or none, and says which second of the clip is heard.
 * Videos follow it, since a jump of a picture is not noticed and one of a sound is.
 */
class Player {
  constructor(duration) {
    this.duration = duration;
    this.playing = false;
    this.position = 0; // where it stands, or where it began to play
    this.context = new AudioContext();
    this.volume = new GainNode(this.context);
    this.volume.connect(this.context.destination);
    this.binaural = buildBinaural(this.context, this.volume);
    this.buffer = null;
    this.source = null;
    this.silent = false; // the browser gives no sound, so that its clock stands still
  }

  /** Seconds of the clip. */
  now() {
    if (!this.playing) return this.position;
    return Math.max(this.position, this.position + this._clock() - this.begun);
  }

  _clock() {
    if (this.silent) return performance.now() / 1000;
    return this.context.currentTime - (this.context.outputLatency || 0);
  }

  async play() {
    // A browser that may not play (or has no device) leaves the promise open.
    const waited = new Promise((resolve) => setTimeout(resolve, 1000));
    await Promise.race([this.context.resume().catch(() => {}), waited]);
    this.silent = this.context.state !== "running";
    this.playing = true;
    this._start();
  }

  pause() {
    this.position = this.now();
    this.playing = false;
    this._stop();
  }

  seek(seconds) {
    this.position = Math.max(0, Math.min(seconds, this.duration));
    if (this.playing) this._start();
  }

  /** Sounds with four channels are an ambisonic field; others are played as they are. */
  setAudio(buffer) {
    this.position = this.now();
    this.buffer = buffer;
    if (this.playing) this._start();
  }

  _start() {
    this._stop();
    this.begun = this._clock();
    if (this.buffer === null || this.position >= this.buffer.duration) return;
    this.source = new AudioBufferSourceNode(this.context, { buffer: this.buffer });
    const isField = this.buffer.numberOfChannels === 4;
    this.source.connect(isField ? this.binaural.input : this.volume);
    this.source.start(0, this.position);
  }

  _stop() {
    if (this.source !== null) {
      this.source.stop();
      this.source.disconnect();
    }
    this.source = null;
  }
}
