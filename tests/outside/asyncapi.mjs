// Parse the AsyncAPI document of the file that is named; print errors and warnings, and end with 1 where there are any.
import { readFile } from "node:fs/promises";
import { Parser } from "@asyncapi/parser";

const WARNING = 1; // 0 is an error; 2 and above are advice, such as that there is a newer AsyncAPI
const { document, diagnostics } = await new Parser().parse(await readFile(process.argv[2], "utf8"));
const found = diagnostics.filter(({ severity }) => severity <= WARNING);
for (const { code, path, message } of found) console.log(`${code} at ${path.join(".")}: ${message}`);
if (document) console.log(`${document.channels().all().length} channels, ${document.allMessages().all().length} messages`);
process.exitCode = document && found.length === 0 ? 0 : 1;
