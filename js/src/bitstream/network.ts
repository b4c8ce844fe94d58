/** Section 4: a network. */

import { check } from "../errors.js";
import { stepSize } from "../model/steps.js";
import { readGroups } from "./groups.js";
import { Reader } from "./reader.js";

const MOST_ENCODER = 1024;
const MOST_EXPERTS = 256;
const MOST_WIDTH = 1024;
const MOST_LAYERS = 16;
const WEIGHTS_PER_BYTE = 16;
const MOST_WEIGHTS_OF_A_VOXEL = 2 ** 17;

/** Where around a voxel a network reads the transform on an axis. */
export interface Stencil {
  distance: number;
  gain: number;
}

/** A layer's weights, of each expert a row of its inputs for each output, and its biases. */
export interface Layer {
  inputs: number;
  weights: Float64Array;
  biases: Float64Array;
}

export interface Network {
  /** One for each axis where the network reads a transform, else none. */
  stencils: Stencil[];
  experts: number;
  width: number;
  /** Integer weights of axes and experts, and biases; empty where there is one expert. */
  gateWeights: Float64Array;
  gateBiases: Float64Array;
  /** Of each axis. */
  encoderWeights: Float64Array[];
  encoderBiases: Float64Array;
  layers: Layer[];
  decoderWeights: Float64Array;
  decoderBias: number;
}

interface Sizes {
  axes: number;
  features: number;
  encoder: number;
  experts: number;
  width: number;
  layers: number;
}

/** The numbers of elements of all tensors, those of the gate first. */
function tensorSizes({ axes, features, encoder, experts, width, layers }: Sizes): number[] {
  const gate = experts > 1 ? [axes * experts, experts] : [];
  const encoders = Array.from({ length: axes + 1 }, () => encoder);
  const hidden = Array.from({ length: layers }, (_, layer) => {
    const inputs = layer ? width : encoder + features;
    return [experts * width * inputs, experts * width];
  });
  return [...gate, ...encoders, ...hidden.flat(), width, 1];
}

/**
 * Read a network of so many axes; `corrects` says whether it reads a transform, `taken` how many bytes a dictionary has.
 */
export function readNetwork(bytes: Uint8Array, axes: number, corrects: boolean, taken = 0): Network {
  check(axes > 0, "a network without axes");
  const source = new Reader(bytes);
  const stencils = [...source.take(corrects ? axes : 0)].map((byte) => ({
    distance: byte & 15,
    gain: byte >> 4,
  }));
  check(
    stencils.every(({ distance }) => distance > 0),
    "a stencil of distance 0",
  );
  const sizes: Sizes = {
    axes,
    features: corrects ? 1 + 4 * axes : 0,
    encoder: source.varint(),
    experts: source.varint(),
    width: source.varint(),
    layers: source.varint(),
  };
  const within = (n: number, most: number) => n >= 1 && n <= most;
  check(
    within(sizes.encoder, MOST_ENCODER) &&
      within(sizes.experts, MOST_EXPERTS) &&
      within(sizes.width, MOST_WIDTH) &&
      within(sizes.layers, MOST_LAYERS),
    `a network of sizes ${Object.values(sizes)}`,
  );
  const counts = tensorSizes(sizes);
  const total = counts.reduce((all, n) => all + n, 0);
  check(
    total <= WEIGHTS_PER_BYTE * (bytes.length - taken),
    `${total} weights in ${bytes.length - taken} bytes`,
  );
  const used = tensorSizes({ ...sizes, experts: 1 }).reduce((all, n) => all + n, 0);
  check(used <= MOST_WEIGHTS_OF_A_VOXEL, `${used} weights of a voxel`);
  const gates = sizes.experts > 1 ? 2 : 0;
  const steps = counts.map((_, i) => (i < gates ? 1 : stepSize(source.u8())));
  const tensors = readGroups(source, counts).map((integers, i) => integers.map((k) => k * steps[i]));
  const take = () => tensors.shift() as Float64Array;
  const gateWeights = gates ? take() : new Float64Array(0);
  const gateBiases = gates ? take() : new Float64Array(0);
  check(
    gateWeights.every((k) => Math.abs(k) <= 127) && gateBiases.every((k) => Math.abs(k) <= 511),
    "a gate",
  );
  const encoderWeights = Array.from({ length: axes }, take);
  const encoderBiases = take();
  const layers = Array.from({ length: sizes.layers }, (_, layer) => {
    return { inputs: layer ? sizes.width : sizes.encoder + sizes.features, weights: take(), biases: take() };
  });
  return {
    stencils,
    experts: sizes.experts,
    width: sizes.width,
    gateWeights,
    gateBiases,
    encoderWeights,
    encoderBiases,
    layers,
    decoderWeights: take(),
    decoderBias: take()[0],
  };
}
