/** Slices and series of a variable, from chunks that are fetched and decoded once. */

import type { Variable } from "./store.js";

const MOST = 24; // decoded chunks that are kept of a variable

interface Chunk {
  data: ArrayLike<number | bigint>;
  stride: number[];
}

export class Chunks {
  private readonly kept = new Map<string, Promise<Chunk>>();

  constructor(readonly variable: Variable) {}

  private get(place: number[]): Promise<Chunk> {
    const key = place.join();
    let chunk = this.kept.get(key);
    this.kept.delete(key);
    chunk ??= this.variable.array.getChunk(place) as Promise<Chunk>;
    this.kept.set(key, chunk); // the last one used stands last
    chunk.catch(() => this.kept.delete(key));
    for (const oldest of this.kept.keys()) {
      if (this.kept.size <= MOST) break;
      this.kept.delete(oldest);
    }
    return chunk;
  }

  /** Values at an index along all of the axes `free`, in C order; `index` says where on the others. */
  async read(index: readonly number[], free: readonly number[]): Promise<Float64Array> {
    const { array, meaning } = this.variable;
    const { shape, chunks } = array;
    const first = index.map((i, axis) => (free.includes(axis) ? 0 : Math.floor(i / chunks[axis])));
    const size = free.map((axis) => shape[axis]);
    const result = new Float64Array(size.reduce((all, n) => all * n, 1));
    const strides = free.map((_, i) => size.slice(i + 1).reduce((all, n) => all * n, 1));
    const visit = async (place: number[], depth: number): Promise<void> => {
      if (depth < free.length) {
        const axis = free[depth];
        const count = Math.ceil(shape[axis] / chunks[axis]);
        const each = Array.from({ length: count }, (_, i) => place.map((own, a) => (a === axis ? i : own)));
        await Promise.all(each.map((own) => visit(own, depth + 1)));
        return;
      }
      const { data, stride } = await this.get(place);
      const copy = (axis: number, from: number, to: number): void => {
        if (axis === free.length) {
          result[to] = meaning(data[from]);
          return;
        }
        const own = free[axis];
        const start = place[own] * chunks[own];
        const end = Math.min(start + chunks[own], shape[own]);
        for (let i = start; i < end; i++)
          copy(axis + 1, from + (i - start) * stride[own], to + i * strides[axis]);
      };
      const fixed = index.reduce((all, i, axis) => {
        return free.includes(axis) ? all : all + (i - place[axis] * chunks[axis]) * stride[axis];
      }, 0);
      copy(0, fixed, 0);
    };
    await visit(first, 0);
    return result;
  }
}
