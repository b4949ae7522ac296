"use strict";
// Where sound comes from: the power of a first-order beam in every direction.
//
// The beam is the hypercardioid, which of all first-order beams takes up least of a diffuse field:
// (W + 3 d·(X, Y, Z)) / 4 for a direction d and SN3D weights. Its power is wᵀ C w, with C the
// covariance (4×4) of the channels over a tenth of a second, A-weighted as hearing is: otherwise a
// bass drum would outweigh all voices. It is broad: 6 dB below its peak at 70° from a single source,
// and again in the opposite direction. `avprep preview` draws another map, of the directions of
// intensity (DirAC), which is far sharper for single sources.

const BLOCK_SECONDS = 0.1;
const SILENCE = 1e-9; // mean square of W, about -90 dB
const FLAT = 1.05; // power of the loudest direction over the least, of sound without any

/**
 * The channels of an AudioBuffer with A-weighting (IEC 61672-1, annex E), but for a constant factor:
 * two poles at 20.6 Hz, one at 107.7 and one at 737.9 Hz with four zeros at 0, and two poles at
 * 12,194 Hz. Poles at a and b are one filter at √(ab) with the quality √(ab) / (a + b).
 */
async function weighted(buffer) {
  const { numberOfChannels, length, sampleRate } = buffer;
  const context = new OfflineAudioContext(numberOfChannels, length, sampleRate);
  const source = new AudioBufferSourceNode(context, { buffer });
  let last = source;
  for (const [type, a, b] of [["highpass", 20.6, 20.6], ["highpass", 107.7, 737.9],
    ["lowpass", 12194, 12194]]) {
    const quality = Math.sqrt(a * b) / (a + b);
    const filter = new BiquadFilterNode(context, {
      type, frequency: Math.sqrt(a * b), Q: 20 * Math.log10(quality), // Web Audio wants decibels
    });
    last.connect(filter);
    last = filter;
  }
  last.connect(context.destination);
  source.start();
  return context.startRendering();
}

/** Covariances (4×4) of the channels W, Y, Z, X of an AudioBuffer, one for each tenth of a second. */
function covariances(buffer) {
  const length = Math.round(BLOCK_SECONDS * buffer.sampleRate);
  const channels = [0, 1, 2, 3].map((channel) => buffer.getChannelData(channel));
  const blocks = [];
  for (let start = 0; start < buffer.length; start += length) {
    const end = Math.min(start + length, buffer.length);
    const block = identity(4);
    for (let i = 0; i < 4; i++) {
      for (let j = 0; j <= i; j++) {
        let sum = 0;
        for (let n = start; n < end; n++) sum += channels[i][n] * channels[j][n];
        block[i][j] = block[j][i] = sum / (end - start);
      }
    }
    blocks.push(block);
  }
  return blocks;
}

function beamWeights([x, y, z]) {
  return [1, 3 * y, 3 * z, 3 * x].map((weight) => weight / 4);
}

function beamPower(covariance, vector) {
  const weights = beamWeights(vector);
  return transformed(covariance, weights).reduce((sum, value, i) => sum + value * weights[i], 0);
}

function isSilent(covariance) {
  return covariance[0][0] < SILENCE;
}

/** The direction of most power and that power; null for silence, and where no direction stands out. */
function loudest(covariance) {
  if (isSilent(covariance)) return null;
  let best = { azimuth: 0, elevation: 0, power: -1 }, least = Infinity;
  const consider = (azimuth, elevation) => {
    const power = beamPower(covariance, unitVector(azimuth, elevation));
    if (power > best.power) best = { azimuth, elevation, power };
    least = Math.min(least, power);
  };
  for (let elevation = -80; elevation <= 80; elevation += 10) {
    for (let azimuth = -180; azimuth < 180; azimuth += 10) consider(azimuth, elevation);
  }
  if (best.power < FLAT * least) return null;
  for (const step of [5, 2.5, 1.2, 0.6, 0.3, 0.1]) {
    for (let power = -1; power < best.power;) {
      power = best.power;
      const { azimuth, elevation } = best;
      for (const [a, e] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
        const wide = step / Math.max(0.1, Math.cos(elevation * DEGREE)); // degrees shrink at poles
        consider(azimuth + a * wide, Math.max(-90, Math.min(90, elevation + e * step)));
      }
    }
  }
  return { ...directionOf(unitVector(best.azimuth, best.elevation)), power: best.power };
}
