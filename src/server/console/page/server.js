// Asks the server. Everything comes from the origin of the page.

/** No answer came: the server is gone, or cannot be reached. */
export class Gone extends Error {}

/** The server answered that it does not answer this; `code` is the HTTP status. */
export class Refused extends Error {
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

/** Reads JSON below `/console/api/`. */
export const get = (path, signal) => ask(path, { signal });

/** Sends JSON. */
export const post = (path, body, signal) =>
  ask(path, { signal, method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json" } });

async function ask(path, options) {
  for (let attempt = 0; ; attempt += 1) {
    const response = await send(path, options);
    // The server takes a few questions at a time.
    if (response.status === 503 && attempt < MAX_RETRIES) {
      await new Promise((resume) => setTimeout(resume, 250 * 2 ** attempt));
      continue;
    }
    const text = await body(response);
    if (!response.ok) throw new Refused(response.status, text.trim());
    return JSON.parse(text);
  }
}

async function send(path, options) {
  const limit = AbortSignal.timeout(DEADLINE_MILLIS);
  const signal = options.signal ? AbortSignal.any([options.signal, limit]) : limit;
  try {
    return await fetch(`console/api/${path}`, { cache: "no-store", credentials: "omit", redirect: "error", ...options, signal });
  } catch (error) {
    throw options.signal?.aborted ? error : new Gone();
  }
}

async function body(response) {
  try {
    return await response.text();
  } catch {
    throw new Gone();
  }
}

const DEADLINE_MILLIS = 10_000;
const MAX_RETRIES = 4;
