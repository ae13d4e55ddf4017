// A server from before some fields, and from before the question of the token endpoint unless it is told that question: passes
// questions to the real one, and takes those fields out of its answers.

import grpc from "@grpc/grpc-js";

import { CHECK, EXPAND, TOKEN, decoder, encoder } from "../dist/wire.js";
import { cleanup } from "./service.mjs";

/**
 * Returns its target.
 *
 * @param {import("node:test").TestContext} t @param {string} target
 * @param {{ missing: string[], changed: Record<string, unknown>, hasTokens?: boolean } | string[]} faults May be changed later.
 * @param {Record<string, unknown>} [also]
 */
export async function oldServer(t, target, faults, also = {}) {
  const channel = new grpc.Client(target, grpc.credentials.createInsecure());
  const server = new grpc.Server();
  const bytes = (/** @type {Buffer} */ value) => value;
  const hasTokens = !Array.isArray(faults) && faults.hasTokens;
  for (const method of [EXPAND, CHECK, ...(hasTokens ? [TOKEN] : [])]) {
    const [encode, decode] = [encoder(/** @type {any} */ (method.answer)), decoder(/** @type {any} */ (method.answer))];
    const rpc = { path: method.path, requestStream: false, responseStream: false };
    const types = { requestSerialize: bytes, requestDeserialize: bytes, responseSerialize: bytes, responseDeserialize: bytes };
    const name = method.path.slice(method.path.lastIndexOf("/") + 1);
    server.addService({ [name]: { ...rpc, ...types } }, {
      [name]: (/** @type {any} */ call, /** @type {any} */ answered) => {
        channel.makeUnaryRequest(method.path, bytes, bytes, call.request, (error, answer) => {
          if (error !== null || answer === undefined) return answered(error);
          const given = /** @type {any} */ (decode(answer));
          const { missing, changed } = Array.isArray(faults) ? { missing: faults, changed: also } : faults;
          for (const field of missing) {
            if (!(field in given)) continue;
            const empty = { string: "", number: 0 }[/** @type {"string" | "number"} */ (typeof given[field])];
            given[field] = Array.isArray(given[field]) ? [] : empty;
          }
          answered(null, encode(Object.assign(given, changed)));
        });
      },
    });
  }
  const port = await new Promise((resolve, reject) => {
    server.bindAsync("127.0.0.1:0", grpc.ServerCredentials.createInsecure(), (error, bound) => (error ? reject(error) : resolve(bound)));
  });
  cleanup(t, () => {
    server.forceShutdown();
    channel.close();
  });
  return `127.0.0.1:${port}`;
}
