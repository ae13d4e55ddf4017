// The harness tells a driver what to do, one line of JSON at a time, and gets one line back for each.
import { createInterface } from 'node:readline';

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const say = message => process.stdout.write(`${JSON.stringify(message)}\n`);

const next = async () => {
  const { value, done } = await lines.next();
  return done ? undefined : JSON.parse(value);
};

/** Has the browser of the harness visit a page; returns the URL that it was sent back to, which begins with `redirect_uri`. */
export const visit = async (url, redirect_uri) => {
  say({ visit: String(url), ...(redirect_uri ? { redirect_uri } : {}) });
  return new URL((await next()).callback);
};

/** What a client cannot be made to do. */
export class Cannot extends Error {}

/** Serves until the harness goes: `handlers` has a function for each verb. */
export const serve = async handlers => {
  for (let message; (message = await next()); ) {
    try {
      await handlers[message.do](message);
      say({ ok: true });
    } catch (error) {
      say(error instanceof Cannot ? { cannot: error.message } : { ok: false, error: String(error?.message ?? error) });
    }
  }
};
