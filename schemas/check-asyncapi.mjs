// Checks schemas/asyncapi.yaml, and what it refers to, with AsyncAPI's own parser.
//
//     node schemas/check-asyncapi.mjs FOLDER
//
// FOLDER is where `npm install @asyncapi/parser` was run: the parser stays outside of the repository.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { resolve } from "node:path";
import { fileURLToPath } from "node:url";

const folder = process.argv[2];
if (!folder) {
  console.error("usage: node schemas/check-asyncapi.mjs FOLDER_WITH_THE_PARSER");
  process.exit(2);
}
const { Parser } = createRequire(resolve(folder) + "/")("@asyncapi/parser");

// Of severities 0 (error), 1 (warning), 2 (information), 3 (hint): what makes the contract wrong or doubtful.
const WARNING = 1;
// 3.0 is what the tools read; that 3.1 exists is no doubt about us.
const ALLOWED = new Set(["asyncapi-latest-version"]);

const source = fileURLToPath(new URL("asyncapi.yaml", import.meta.url));
const { document, diagnostics } = await new Parser().parse(readFileSync(source, "utf8"), { source });
const faults = diagnostics.filter((found) => found.severity <= WARNING && !ALLOWED.has(found.code));
for (const { code, message, path, range } of faults) {
  console.error(`asyncapi.yaml:${range.start.line + 1}: ${path.join(".")}: ${message} (${code})`);
}
if (faults.length > 0 || !document) {
  process.exit(1);
}
console.log(`asyncapi.yaml: ${document.channels().length} channels, ${document.operations().length} operations`);
