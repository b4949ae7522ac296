"use strict";
// Directions, rotations and the camera, in the convention of all of avsa360 (shards/geometry.py):
// right-handed, +X front, +Y left, +Z up; azimuth is positive to the left, elevation upwards, both
// in degrees. Matrices are arrays of rows. Ambisonic channels are W, Y, Z, X with SN3D weights.

const DEGREE = Math.PI / 180;
const ACN_TO_XYZ = [1, 2, 0]; // the components of a vector (x, y, z) in the order Y, Z, X

function unitVector(azimuth, elevation) {
  const a = azimuth * DEGREE, e = elevation * DEGREE;
  return [Math.cos(e) * Math.cos(a), Math.cos(e) * Math.sin(a), Math.sin(e)];
}

/** Azimuth and elevation of a vector of any length. */
function directionOf([x, y, z]) {
  return { azimuth: Math.atan2(y, x) / DEGREE, elevation: Math.atan2(z, Math.hypot(x, y)) / DEGREE };
}

function transformed(matrix, vector) {
  return matrix.map((row) => row.reduce((sum, weight, i) => sum + weight * vector[i], 0));
}

function transposed(matrix) {
  return matrix[0].map((_, column) => matrix.map((row) => row[column]));
}

/** The product of matrices, the last of which is applied first. */
function product(first, ...others) {
  return others.reduce((left, right) => {
    const columns = transposed(right);
    return left.map((row) => transformed(columns, row));
  }, first);
}

function identity(size) {
  return Array.from({ length: size }, (_, i) => Array.from({ length: size }, (_, j) => +(i === j)));
}

/** The rotation that brings a direction to the front, without roll: yaw first, then pitch. */
function viewRotation(azimuth, elevation) {
  const a = azimuth * DEGREE, e = elevation * DEGREE;
  const yaw = [[Math.cos(a), Math.sin(a), 0], [-Math.sin(a), Math.cos(a), 0], [0, 0, 1]];
  const pitch = [[Math.cos(e), 0, Math.sin(e)], [0, 1, 0], [-Math.sin(e), 0, Math.cos(e)]];
  return product(pitch, yaw);
}

/** The matrix that rotates an ambisonic field as a rotation (3×3) does vectors. */
function foaMatrix(rotation) {
  const matrix = identity(4);
  for (let i = 0; i < 3; i++) {
    for (let j = 0; j < 3; j++) matrix[i + 1][j + 1] = rotation[ACN_TO_XYZ[i]][ACN_TO_XYZ[j]];
  }
  return matrix;
}

/** A rectilinear camera in the middle of the sphere; `fov` is the angle across its wider side. */
class Camera {
  constructor() {
    this.azimuth = 0;
    this.elevation = 0;
    this.fov = 90;
    this.aspect = 16 / 9; // width to height
  }

  lookAt(azimuth, elevation) {
    this.azimuth = azimuth - 360 * Math.ceil((azimuth - 180) / 360); // in (-180, 180]
    this.elevation = Math.max(-90, Math.min(90, elevation));
  }

  get rotation() {
    return viewRotation(this.azimuth, this.elevation);
  }

  /** Tangents of half the angles across and down. */
  get halfTangents() {
    const wide = Math.tan((this.fov * DEGREE) / 2);
    return this.aspect >= 1 ? [wide, wide / this.aspect] : [wide * this.aspect, wide];
  }

  /** The direction seen at a place on the screen, both from 0 (left, top) to 1. */
  ray(x, y) {
    const [across, down] = this.halfTangents;
    return transformed(transposed(this.rotation), [1, (1 - 2 * x) * across, (1 - 2 * y) * down]);
  }

  /** The place of a direction on the screen, as in `ray`; null behind the camera. */
  place(vector) {
    const [depth, left, up] = transformed(this.rotation, vector);
    if (depth <= 0.01) return null;
    const [across, down] = this.halfTangents;
    return [(1 - left / depth / across) / 2, (1 - up / depth / down) / 2];
  }
}

/** The direction at a place (0 to 1 from the left upper corner) of a view's crop. */
function viewRay(view, x, y) {
  const left = (1 - 2 * x) * Math.tan((view.hfov * DEGREE) / 2);
  const up = (1 - 2 * y) * Math.tan((view.vfov * DEGREE) / 2);
  return transformed(transposed(viewRotation(view.azimuth, view.elevation)), [1, left, up]);
}

/** Whether a view shows a direction. */
function isInView(view, vector) {
  const [depth, left, up] = transformed(viewRotation(view.azimuth, view.elevation), vector);
  return depth > 0
    && Math.abs(left / depth) <= Math.tan((view.hfov * DEGREE) / 2)
    && Math.abs(up / depth) <= Math.tan((view.vfov * DEGREE) / 2);
}
