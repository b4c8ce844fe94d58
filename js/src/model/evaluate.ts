/** The values of a network at all voxels. */

import type { Layer, Network } from "../bitstream/network.js";
import { rint } from "./dtype.js";
import { neighbourGains, neighbourTables } from "./features.js";
import { product, stridesOf } from "./shapes.js";
import { sine } from "./sine.js";

/** Coordinates of the voxels of an axis. */
function coordinates(n: number): Float64Array {
  return Float64Array.from({ length: n }, (_, i) => (2 * i) / (n - 1) - 1);
}

/**
 * Add a network's values to those of a grid.
 *
 * `z` are the transform's values, which the features are made of, and `norm` their spread; the values are
 * added to `y`, another array.
 */
export function addNetwork(
  network: Network,
  shape: readonly number[],
  y: Float64Array,
  z: Float64Array | undefined,
  norm: number,
): void {
  const { encoderWeights, encoderBiases, experts, gateBiases, gateWeights, width } = network;
  const last = shape.length - 1;
  const axes = shape.map(coordinates);
  const encoder = encoderBiases.length;
  const input = new Float64Array(network.layers[0].inputs);
  const hidden = [new Float64Array(width), new Float64Array(width)];
  const phases = new Float64Array(encoder); // of a row, without the last axis
  const loads = new Float64Array(experts);
  const readFeatures = z && makeFeatures(network, shape, z, norm);
  const index = new Array<number>(shape.length).fill(0);
  const columns = shape[last];
  for (let row = 0, rows = product(shape.slice(0, -1)); row < rows; row++) {
    phases.set(encoderBiases);
    for (let axis = 0; axis < last; axis++) {
      const u = axes[axis][index[axis]];
      for (let i = 0; i < encoder; i++) phases[i] += u * encoderWeights[axis][i];
    }
    if (experts > 1) {
      for (let k = 0; k < experts; k++) {
        loads[k] = 4096 * gateBiases[k];
        for (let axis = 0; axis < last; axis++) {
          loads[k] += gateWeights[axis * experts + k] * rint(4096 * axes[axis][index[axis]]);
        }
      }
    }
    for (let column = 0; column < columns; column++) {
      const place = row * columns + column;
      const u = axes[last][column];
      for (let i = 0; i < encoder; i++) input[i] = sine(phases[i] + u * encoderWeights[last][i]);
      readFeatures?.(place, index, column, input, encoder);
      const expert = experts > 1 ? chooseExpert(loads, gateWeights, last * experts, rint(4096 * u)) : 0;
      let own = input;
      for (let layer = 0; layer < network.layers.length; layer++) {
        const next = hidden[layer & 1];
        applyLayer(network.layers[layer], expert, own, next);
        own = next;
      }
      let value = network.decoderBias;
      for (let i = 0; i < width; i++) value += network.decoderWeights[i] * own[i];
      y[place] += value;
    }
    for (let axis = last - 1; axis >= 0 && ++index[axis] === shape[axis]; axis--) index[axis] = 0;
  }
}

/** The lowest of the experts of the largest load. */
function chooseExpert(loads: Float64Array, weights: Float64Array, start: number, unit: number): number {
  let [best, most] = [0, Number.NEGATIVE_INFINITY];
  for (let k = 0; k < loads.length; k++) {
    const load = loads[k] + weights[start + k] * unit;
    if (load > most) [best, most] = [k, load];
  }
  return best;
}

function applyLayer(
  { inputs, weights, biases }: Layer,
  expert: number,
  h: Float64Array,
  next: Float64Array,
): void {
  const width = next.length;
  for (let i = 0; i < width; i++) {
    const row = (expert * width + i) * inputs;
    let sum = biases[expert * width + i];
    for (let k = 0; k < inputs; k++) sum += weights[row + k] * h[k];
    next[i] = sine(sum);
  }
}

/** Write the features of a voxel to `input`, from `start` on. */
function makeFeatures({ stencils }: Network, shape: readonly number[], z: Float64Array, norm: number) {
  const tables = stencils.map((stencil, axis) => neighbourTables(stencil, shape[axis]));
  const gains = stencils.map((stencil) => neighbourGains(stencil, norm));
  const strides = stridesOf(shape);
  const last = shape.length - 1;
  return (
    place: number,
    index: readonly number[],
    column: number,
    input: Float64Array,
    start: number,
  ): void => {
    const own = z[place];
    let at = start;
    input[at++] = own / norm;
    for (let axis = 0; axis <= last; axis++) {
      const i = axis === last ? column : index[axis];
      for (let side = 0; side < 4; side++) {
        input[at++] = (z[place + tables[axis][side][i] * strides[axis]] - own) * gains[axis][side];
      }
    }
  };
}
