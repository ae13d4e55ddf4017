// A server that passes questions to the real one, and that can be told to fail.

import grpc from "@grpc/grpc-js";

import { EXPAND } from "../dist/wire.js";
import { cleanup } from "./service.mjs";

/** @param {import("node:test").TestContext} t @param {string} target */
export async function sickServer(t, target) {
  const channel = new grpc.Client(target, grpc.credentials.createInsecure());
  const server = new grpc.Server();
  const bytes = (/** @type {Buffer} */ value) => value;
  const types = { requestSerialize: bytes, requestDeserialize: bytes, responseSerialize: bytes, responseDeserialize: bytes };
  const rpc = { requestStream: false, responseStream: false, ...types };
  let [calls, isSick, failures, code] = [0, false, 0, 0];
  /** @type {Record<string, (call: any, answered: any) => void>} */
  const handlers = {
    expand(call, answered) {
      calls++;
      if (failures-- > 0) return answered({ code });
      channel.makeUnaryRequest(EXPAND.path, bytes, bytes, call.request, answered);
    },
    check(_, answered) {
      answered(null, Buffer.from([0x08, isSick ? 2 : 1])); // NOT_SERVING, SERVING
    },
  };
  server.addService({ expand: { path: EXPAND.path, ...rpc }, check: { path: "/grpc.health.v1.Health/Check", ...rpc } }, handlers);
  const port = await new Promise((resolve, reject) => {
    server.bindAsync("127.0.0.1:0", grpc.ServerCredentials.createInsecure(), (error, bound) => (error ? reject(error) : resolve(bound)));
  });
  /** The next calls end with the code. @param {number} status @param {number} count */
  function fail(status, count) {
    [failures, code] = [count, status];
  }
  cleanup(t, () => {
    server.forceShutdown();
    channel.close();
  });
  return { target: `127.0.0.1:${port}`, calls: () => calls, becomeSick: () => void (isSick = true), fail };
}
