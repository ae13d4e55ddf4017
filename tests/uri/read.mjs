// Reads a JSON string from each line, prints scheme, host and port as the WHATWG URL of Node sees them, or null.
import { readFileSync } from "node:fs";

for (const line of readFileSync(0, "utf8").split("\n").filter(Boolean)) {
  let found = null;
  try {
    const url = new URL(JSON.parse(line));
    found = [url.protocol.slice(0, -1), url.hostname, url.port];
  } catch {}
  console.log(JSON.stringify(found));
}
