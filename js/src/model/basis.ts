/** The functions of one axis: which ones, their bands and their neighbours. */

/** Cosines, a graph Fourier basis, or wavelets of some decomposition levels. */
export interface Basis {
  /** Functions, as many as voxels. */
  length: number;
  /** Decomposition levels of wavelets; 0 for cosines and graphs. */
  levels: number;
  /** Whether the wavelets are decomposed with those of the other joint axes. */
  joint: boolean;
  /** Of each edge of a graph; empty for others. */
  weights: number[];
  /** The first function of each band, and the number of functions at last. */
  starts: number[];
}

/** The basis of an axis, with its bands. */
export function makeBasis(length: number, levels = 0, joint = false, weights: number[] = []): Basis {
  const starts = [length];
  if (levels) {
    for (let level = 0; level < levels; level++) starts.unshift(Math.ceil(starts[0] / 2));
    starts.unshift(0);
  } else {
    starts.pop();
    for (let start = 0; start < length; start = 2 * start + 1) starts.push(start);
    starts.push(length);
  }
  return { length, levels, joint, weights, starts };
}

export function bandCount(basis: Basis): number {
  return basis.starts.length - 1;
}

/** The band of each of the first functions. */
export function bandsOf(basis: Basis, extent: number): Uint8Array {
  const bands = new Uint8Array(extent);
  for (let band = 0; band < bandCount(basis); band++) {
    bands.fill(band, basis.starts[band], basis.starts[band + 1]);
  }
  return bands;
}

/** The three neighbours of each of the first functions, one after the other; -1 where there is none. */
export function neighboursOf(basis: Basis, extent: number): Int32Array[] {
  const tables = [1, 2, 3].map(() => new Int32Array(extent).fill(-1));
  const { starts, levels } = basis;
  for (let band = 0; band < bandCount(basis); band++) {
    const start = levels ? starts[band] : 0; // cosines have neighbours beyond their band
    const parents = band > 0 ? starts[band] - starts[band - 1] : 0;
    for (let i = starts[band]; i < Math.min(starts[band + 1], extent); i++) {
      for (let back = 1; back <= (levels ? 2 : 3); back++) {
        if (i - back >= start) tables[back - 1][i] = i - back;
      }
      if (levels && band > 0) {
        const place = i - start;
        tables[2][i] = starts[band - 1] + (band === 1 ? place : Math.min(place >> 1, parents - 1));
      }
    }
  }
  return tables;
}
