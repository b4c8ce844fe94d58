/** Section 4: a network. */

import { check } from "../errors.js";
import { RangeDecoder } from "./range_decoder.js";
import { Reader } from "./reader.js";

const MOST_ENCODER = 1024;
const MOST_EXPERTS = 256;
const MOST_WIDTH = 1024;
const MOST_LAYERS = 16;
const WEIGHTS_PER_BYTE = 16;
const MOST_WEIGHTS_OF_A_VOXEL = 2 ** 17;
const LARGEST_INTEGER = 32767;
const WHOLE = 2 ** 24;

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

/** Read a network of so many axes; `corrects` says whether it reads a transform. */
export function readNetwork(bytes: Uint8Array, axes: number, corrects: boolean): Network {
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
  check(total <= WEIGHTS_PER_BYTE * bytes.length, `${total} weights in ${bytes.length} bytes`);
  const used = tensorSizes({ ...sizes, experts: 1 }).reduce((all, n) => all + n, 0);
  check(used <= MOST_WEIGHTS_OF_A_VOXEL, `${used} weights of a voxel`);
  const gates = sizes.experts > 1 ? 2 : 0;
  const steps = counts.map((_, i) => (i < gates ? 1 : readStep(source)));
  const tensors = readTensors(source, counts).map((integers, i) => integers.map((k) => k * steps[i]));
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

function readStep(source: Reader): number {
  const code = source.u8();
  return (8 + (code % 8)) * 2 ** (Math.floor(code / 8) - 27);
}

/** The integers of tensors of so many elements, to the end of the section. */
function readTensors(source: Reader, counts: number[]): Float64Array[] {
  const heads = counts.map(() => {
    const largest = source.varint();
    check(largest <= LARGEST_INTEGER, `a largest integer of ${largest}`);
    return { largest, distribution: largest ? source.u8() : 0 };
  });
  const decoder = new RangeDecoder(source.rest());
  return heads.map(({ largest, distribution }, i) => {
    const integers = new Float64Array(counts[i]);
    if (largest === 0) return integers;
    const table = cumulativeFrequencies(largest, distribution);
    for (let element = 0; element < integers.length; element++) {
      const target = decoder.target();
      let [low, high] = [0, table.length - 1];
      while (high - low > 1) {
        const middle = (low + high) >> 1;
        if (table[middle] <= target) low = middle;
        else high = middle;
      }
      decoder.take(table[low], table[high] - table[low]);
      integers[element] = low - largest;
    }
    return integers;
  });
}

/** Cumulative frequencies of -largest, ..., largest, then 2^24. */
function cumulativeFrequencies(largest: number, distribution: number): Int32Array {
  const t = distribution >> 5;
  const j = distribution & 31;
  const a = BigInt((8 - (j % 4)) * 2 ** (29 - (j >> 2)) * 2 ** (t + 1));
  const shares = Float64Array.from({ length: largest + 1 }, (_, k) => {
    const x = BigInt(Math.floor((65536 * k) / (largest + 1)));
    let share = Number(((1n << 20n) * a) / (a + x * x)); // up to 2^60 above the line
    for (let turn = 0; turn < t; turn++) share = Math.floor((share * share) / 2 ** 20);
    return share;
  });
  const total = 2 * shares.reduce((all, share) => all + share, 0) - shares[0];
  const frequencies = shares.map((share) => 1 + Math.floor((share * (WHOLE - 2 * largest - 1)) / total));
  const others = 2 * frequencies.reduce((all, frequency) => all + frequency, 0) - frequencies[0];
  frequencies[0] += WHOLE - others;
  const table = new Int32Array(2 * largest + 2);
  for (let i = 0; i <= 2 * largest; i++) table[i + 1] = table[i] + frequencies[Math.abs(i - largest)];
  return table;
}
