// Makes the page of examples/browser: one folder of static files in dist/page, to be served by any server.
import { cpSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { buildSync } from "esbuild";

const at = (path) => fileURLToPath(new URL(path, import.meta.url));
const [from, to] = [at("../../examples/browser"), at("../dist/page")];
buildSync({
  entryPoints: [`${from}/main.ts`, `${from}/decode.ts`],
  bundle: true,
  splitting: true, // zarrita's other codecs are loaded when a store has them
  format: "esm",
  minify: true,
  target: "es2022",
  nodePaths: [at("../node_modules")],
  alias: { "moec-zarr/zarrita": at("../src/zarrita.ts") },
  outdir: to,
});
for (const name of ["index.html", "style.css"]) cpSync(`${from}/${name}`, `${to}/${name}`);
