// Checks the committed AsyncAPI document with the official parser. Errors fail, hints are printed.
import fs from "node:fs";
import { Parser } from "@asyncapi/parser";

const { document, diagnostics } = await new Parser().parse(fs.readFileSync(process.argv[2], "utf8"));
for (const { severity, message, path } of diagnostics) console.log(severity, message, (path || []).join("."));
process.exit(!document || diagnostics.some(({ severity }) => severity === 0) ? 1 : 0);
