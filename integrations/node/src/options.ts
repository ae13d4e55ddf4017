// What a client and its calls can be told.

/** What `Client` is told about the connection. */
export interface ConnectionOptions {
  /** Who issues the certificate of an https server (PEM). Without it the roots that Node brings. */
  readonly tlsCaFile?: string | URL | undefined;
  /** Certificate to show, with its chain (PEM). These three are read again when they change. */
  readonly tlsCertFile?: string | URL | undefined;
  /** Its key (PEM). */
  readonly tlsPrivateKeyFile?: string | URL | undefined;
  /** The name that the certificate must have, where the target does not say it. */
  readonly serverName?: string | undefined;
  /** Bearer token to show; only over TLS, or within this machine. */
  readonly token?: string | undefined;
  /** File with the token, read for each call. */
  readonly tokenFile?: string | URL | undefined;
}

/** What a `Client` can be told. */
export interface ClientOptions extends ConnectionOptions {
  /** Milliseconds that a call may take, its retries included. 1000 by default. */
  readonly deadline?: number | undefined;
}

/** How long one call may take. */
export interface CallOptions {
  /** Milliseconds, instead of the client's. */
  readonly deadline?: number | undefined;
}
