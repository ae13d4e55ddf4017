// How to reach the service: what a target may be, and what a channel is told.

import { readFile, stat } from "node:fs/promises";
import { isIP, isIPv4 } from "node:net";

import { credentials, Metadata, type ChannelCredentials, type ChannelOptions } from "@grpc/grpc-js";

import { Unavailable, type QuestionKind } from "./errors.js";
import { HEALTHY_ROUND_ROBIN } from "./health.js";
import type { ConnectionOptions } from "./options.js";

const HINT = "write it as HOST:PORT, http://HOST:PORT, https://HOST:PORT, unix:/PATH or dns:///NAME:PORT";

// Only UNAVAILABLE is safe to ask again and passes by itself. The deadline holds for all attempts together.
const SERVICE_CONFIG = {
  loadBalancingConfig: [{ [HEALTHY_ROUND_ROBIN]: {} }],
  methodConfig: [
    {
      name: [
        { service: "scopeward.v1.ScopePolicyService" },
        { service: "scopeward.v1.PolicyStatusService", method: "GetPolicyStatus" },
      ],
      retryPolicy: {
        maxAttempts: 3,
        initialBackoff: "0.05s",
        maxBackoff: "0.5s",
        backoffMultiplier: 2,
        retryableStatusCodes: ["UNAVAILABLE"],
      },
    },
  ],
};

const OPTIONS: ChannelOptions = {
  // After an outage the library would wait up to two minutes before it connects again.
  "grpc.initial_reconnect_backoff_ms": 100,
  "grpc.max_reconnect_backoff_ms": 1000,
  "grpc.dns_min_time_between_resolutions_ms": 1000,
  // Notices a peer that is gone without a word, while a call or a stream is open.
  "grpc.keepalive_time_ms": 30_000,
  "grpc.keepalive_timeout_ms": 10_000,
  // The service is a neighbour; a proxy for the way to the internet is none for it.
  "grpc.enable_http_proxy": 0,
  // What a name server says of this is for other clients.
  "grpc.service_config_disable_resolution": 1,
  "grpc.service_config": JSON.stringify(SERVICE_CONFIG),
};

/** Where the service is, checked. */
export interface Endpoint {
  /** As gRPC wants it. */
  readonly target: string;
  readonly isTls: boolean;
  /** A loopback address or a unix socket: nothing leaves the machine. */
  readonly isLocal: boolean;
  readonly addresses: number;
}

/** @throws {RangeError} for what is no target, or for several that are not IP addresses of one kind. */
export function parseTarget(target: string | readonly string[]): Endpoint {
  if (typeof target === "string") return parseOne(target);
  const endpoints = target.map(parseOne);
  const [first] = endpoints;
  if (first === undefined) throw new RangeError(`no target; ${HINT}`);
  if (endpoints.length === 1) return first;
  if (endpoints.some((endpoint) => endpoint.isTls !== first.isTls)) {
    throw new RangeError("several targets are either all https:// or none");
  }
  const kinds = new Set(endpoints.map((endpoint) => endpoint.target.split(":", 1)[0]));
  const [kind] = kinds;
  if (kinds.size !== 1 || (kind !== "ipv4" && kind !== "ipv6")) {
    throw new RangeError("several targets have to be IP addresses of one kind; for names use one dns:///NAME:PORT that has several addresses");
  }
  return {
    target: `${kind}:${endpoints.map((endpoint) => endpoint.target.slice(kind.length + 1)).join(",")}`,
    isTls: first.isTls,
    isLocal: endpoints.every((endpoint) => endpoint.isLocal),
    addresses: endpoints.length,
  };
}

function parseOne(text: string): Endpoint {
  if (text.startsWith("unix:")) {
    const path = text.slice("unix:".length).replace(/^\/\/(?=\/)/, "");
    if (path === "") throw new RangeError(`\`${text}\` has no path; ${HINT}`);
    return { target: `unix:${path}`, isTls: false, isLocal: true, addresses: 1 };
  }
  const rest = text.startsWith("dns:///") ? text.slice("dns:///".length) : text;
  const found = /^(?:(https?):\/\/)?(\[[0-9A-Fa-f:.]+\]|[^\s/:@?#[\]\\]+):(\d{1,5})\/?$/i.exec(rest);
  const [, scheme = "http", name = "", port = ""] = found ?? [];
  if (found === null || Number(port) > 65535) {
    throw new RangeError(`\`${text}\` is not a target: it needs a host and a port, and has no path; ${HINT}`);
  }
  const isTls = scheme.toLowerCase() === "https";
  const host = name.replace(/^\[|\]$/g, "");
  if (name !== host && isIP(host) !== 6) throw new RangeError(`\`${text}\` is not a target; ${HINT}`);
  if (isIPv4(host)) return { target: `ipv4:${host}:${port}`, isTls, isLocal: host.startsWith("127."), addresses: 1 };
  if (name !== host) return { target: `ipv6:[${host}]:${port}`, isTls, isLocal: new URL(`http://${name}`).hostname === "[::1]", addresses: 1 };
  return { target: `dns:///${host}:${port}`, isTls, isLocal: host.toLowerCase() === "localhost", addresses: 1 };
}

/** All that a channel and its calls need. Nothing is read or opened before the first call. */
export class Connection {
  /** @throws {RangeError} if the options do not fit each other. */
  constructor(
    readonly endpoint: Endpoint,
    private readonly options: ConnectionOptions,
  ) {
    const { tlsCaFile, tlsCertFile, tlsPrivateKeyFile, serverName, token, tokenFile } = options;
    if (token !== undefined && tokenFile !== undefined) {
      throw new RangeError("a token is given as `token` or as `tokenFile`, not as both");
    }
    if ((token !== undefined || tokenFile !== undefined) && !endpoint.isTls && !endpoint.isLocal) {
      throw new RangeError("a token does not travel in plaintext to another machine; use https://");
    }
    if (token !== undefined && !/^[\x21-\x7e]+$/.test(token)) throw new RangeError("`token` is not a bearer token");
    if ((tlsCertFile === undefined) !== (tlsPrivateKeyFile === undefined)) {
      throw new RangeError("`tlsCertFile` and `tlsPrivateKeyFile` are given together");
    }
    if (endpoint.isTls && endpoint.addresses > 1 && serverName === undefined) {
      throw new RangeError("several https:// addresses need the `serverName` that their certificates have");
    }
    if (!endpoint.isTls && (tlsCaFile !== undefined || tlsCertFile !== undefined)) {
      throw new RangeError("TLS files are for https:// targets");
    }
  }

  /** Changes when a TLS file does. Rejects for a file that is not there. */
  async fingerprint(): Promise<string> {
    const files = [this.options.tlsCaFile, this.options.tlsCertFile, this.options.tlsPrivateKeyFile];
    const stats = await Promise.all(files.filter((file) => file !== undefined).map((file) => stat(file, { bigint: true })));
    return stats.map(({ ino, mtimeNs, size }) => `${ino}:${mtimeNs}:${size}`).join(" ");
  }

  channelOptions(): ChannelOptions {
    const { serverName } = this.options;
    if (serverName !== undefined) {
      return { ...OPTIONS, "grpc.ssl_target_name_override": serverName, "grpc.default_authority": serverName };
    }
    if (this.endpoint.target.startsWith("unix:") || this.endpoint.addresses > 1) {
      return { ...OPTIONS, "grpc.default_authority": "localhost" };
    }
    return OPTIONS;
  }

  /** Rejects for a file that cannot be read or is not PEM. */
  async credentials(): Promise<ChannelCredentials> {
    if (!this.endpoint.isTls) return credentials.createInsecure();
    const read = async (file: string | URL | undefined): Promise<Buffer | null> => (file === undefined ? null : readFile(file));
    const { tlsCaFile, tlsPrivateKeyFile, tlsCertFile } = this.options;
    return credentials.createSsl(await read(tlsCaFile), await read(tlsPrivateKeyFile), await read(tlsCertFile));
  }

  /** The metadata of a call. A token file is read each time, so that a new token counts at once. */
  async metadata(kind: QuestionKind): Promise<Metadata> {
    const metadata = new Metadata();
    let token = this.options.token;
    if (this.options.tokenFile !== undefined) {
      try {
        token = (await readFile(this.options.tokenFile, "utf8")).trim();
      } catch (cause) {
        throw new Unavailable(`could not read the token file: ${String(cause)}`, { code: "UNAUTHENTICATED", kind, cause });
      }
      if (!/^[\x21-\x7e]+$/.test(token)) {
        throw new Unavailable("the token file has no bearer token", { code: "UNAUTHENTICATED", kind });
      }
    }
    if (token !== undefined) metadata.set("authorization", `Bearer ${token}`);
    return metadata;
  }
}
