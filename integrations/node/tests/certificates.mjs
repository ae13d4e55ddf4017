// Certificates for one test: a certificate authority, and what it issues. Made by the openssl command.

import { execFileSync } from "node:child_process";
import { isIP } from "node:net";
import { join } from "node:path";

/** Issues certificates into a folder, each as `NAME.pem` and `NAME.key`. */
export class Authority {
  #folder;
  #name;

  /** @param {string} folder @param {string} name */
  constructor(folder, name) {
    this.#folder = folder;
    this.#name = name;
    this.file = join(folder, `${name}.pem`);
    openssl(folder, "req", "-x509", ...key(name), "-out", `${name}.pem`, "-subj", `/CN=${name}`, "-days", "30");
  }

  /** @param {string} name @param {string[]} hosts */
  issue(name, ...hosts) {
    const authority = ["-CA", `${this.#name}.pem`, "-CAkey", `${this.#name}.key`];
    const names = hosts.map((host) => `${isIP(host) === 0 ? "DNS" : "IP"}:${host}`).join(",");
    const extensions = ["-addext", "basicConstraints=critical,CA:FALSE", ...(names === "" ? [] : ["-addext", `subjectAltName=${names}`])];
    openssl(this.#folder, "req", "-x509", ...authority, ...key(name), "-out", `${name}.pem`, "-subj", `/CN=${name}`, "-days", "30", ...extensions);
    return { certificate: join(this.#folder, `${name}.pem`), key: join(this.#folder, `${name}.key`) };
  }
}

/** @param {string} name */
function key(name) {
  return ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", `${name}.key`];
}

/** @param {string} cwd @param {string[]} args */
function openssl(cwd, ...args) {
  execFileSync("openssl", args, { cwd, stdio: "pipe" });
}
