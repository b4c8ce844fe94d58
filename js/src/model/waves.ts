/** Cosines and graph Fourier modes, as matrices of a row of functions for each voxel. */

const SWEEPS = 60; // Jacobi's method needs about ten

const MOST_KEPT = 16; // matrices, which the chunks of a variable often share
const LARGEST_KEPT = 2 ** 17; // numbers of one: 1 MiB
const kept = new Map<string, Float64Array>();

/** Function i at voxel x in `[x * extent + i]`, of the first `extent` functions. Not to be changed. */
export function waveMatrix(n: number, weights: readonly number[], extent: number): Float64Array {
  const key = `${n} ${extent} ${weights}`;
  const found = kept.get(key);
  if (found) return found;
  const matrix = weights.length ? graphModes(weights, extent) : cosines(n, extent);
  if (matrix.length > LARGEST_KEPT) return matrix;
  for (const oldest of kept.keys()) {
    if (kept.size < MOST_KEPT) break;
    kept.delete(oldest);
  }
  kept.set(key, matrix);
  return matrix;
}

function cosines(n: number, extent: number): Float64Array {
  // All angles are multiples of pi / 2n.
  const table = Float64Array.from(
    { length: 4 * n },
    (_, i) => Math.sqrt(2 / n) * Math.cos((Math.PI * i) / (2 * n)),
  );
  const matrix = new Float64Array(n * extent);
  for (let x = 0; x < n; x++) {
    matrix[x * extent] = Math.sqrt(1 / n);
    for (let k = 1; k < extent; k++) matrix[x * extent + k] = table[(k * (2 * x + 1)) % (4 * n)];
  }
  return matrix;
}

/** Eigenvectors of the Laplacian of a path graph, an edge of weight w counting 2^(w / 2), by Jacobi's method. */
function graphModes(weights: readonly number[], extent: number): Float64Array {
  const n = weights.length + 1;
  const a = Array.from({ length: n }, () => new Float64Array(n));
  weights.forEach((weight, i) => {
    const edge = 2 ** (weight / 2);
    a[i][i] += edge;
    a[i + 1][i + 1] += edge;
    a[i][i + 1] -= edge;
    a[i + 1][i] -= edge;
  });
  const modes = a.map((_, i) => new Float64Array(n).fill(1, i, i + 1)); // one in each row
  for (let sweep = 0, rotated = true; rotated && sweep < SWEEPS; sweep++) {
    rotated = false;
    for (let p = 0; p < n; p++) {
      for (let q = p + 1; q < n; q++) rotated = rotate(a, modes, p, q) || rotated;
    }
  }
  const order = a.map((_, i) => i).sort((i, k) => a[i][i] - a[k][k]);
  const matrix = new Float64Array(n * extent);
  for (let k = 0; k < extent; k++) {
    const mode = modes[order[k]];
    const largest = mode.reduce((all, value) => Math.max(all, Math.abs(value)), 0);
    const sign = Math.sign(mode.find((value) => Math.abs(value) >= largest / 2) ?? 1);
    mode.forEach((value, x) => {
      matrix[x * extent + k] = sign * value;
    });
  }
  return matrix;
}

/** Rotate two rows and columns so that what they share becomes 0; whether there was anything. */
function rotate(a: Float64Array[], modes: Float64Array[], p: number, q: number): boolean {
  const shared = a[p][q];
  if (Math.abs(shared) <= 1e-18 * (Math.abs(a[p][p]) + Math.abs(a[q][q]))) return false;
  const theta = (a[q][q] - a[p][p]) / (2 * shared);
  const t = (theta < 0 ? -1 : 1) / (Math.abs(theta) + Math.sqrt(theta * theta + 1));
  const c = 1 / Math.sqrt(t * t + 1);
  const s = t * c;
  for (const row of a) {
    const [x, y] = [row[p], row[q]];
    row[p] = c * x - s * y;
    row[q] = s * x + c * y;
  }
  for (const rows of [a, modes]) {
    const [first, second] = [rows[p], rows[q]];
    for (let i = 0; i < first.length; i++) {
      const [x, y] = [first[i], second[i]];
      first[i] = c * x - s * y;
      second[i] = s * x + c * y;
    }
  }
  return true;
}
