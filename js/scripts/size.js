// Says how large the package is when it is minified, and fails where that is more than was promised.
import { buildSync } from "esbuild";

const MOST = 60_000;
for (const entry of ["index", "zarrita"]) {
  const { outputFiles } = buildSync({
    entryPoints: [new URL(`../src/${entry}.ts`, import.meta.url).pathname],
    bundle: true,
    format: "esm",
    minify: true,
    target: "es2022",
    write: false,
  });
  const size = outputFiles[0].contents.length;
  console.log(`${entry}: ${size} bytes minified, at most ${MOST}`);
  if (size > MOST) process.exit(1);
}
