// Round robin over those servers that are healthy. gRPC for Node has no client-side health checking of its own (gRFC A17), so this
// wraps its `round_robin`: where there are several addresses, each one is asked for its health every second
// (`grpc.health.v1.Health/Check`), and one that does not answer, or does not serve, gets no calls until it does.

import { Client, connectivityState, credentials, experimental, status, type ChannelOptions } from "@grpc/grpc-js";

type ChannelControlHelper = experimental.ChannelControlHelper;
type Endpoints = Parameters<experimental.LoadBalancer["updateAddressList"]>[0];
type LoadBalancingConfig = experimental.TypedLoadBalancingConfig;
type Subchannel = experimental.SubchannelInterface;

/** The name of the policy in a service config. */
export const HEALTHY_ROUND_ROBIN = "scopeward_healthy_round_robin";

const INTERVAL_MILLIS = 1000;
const DEADLINE_MILLIS = 1000;
const CHECK = "/grpc.health.v1.Health/Check";
// A `HealthCheckResponse` has one field, an enum of number 1, and `SERVING` is 1.
const SERVING = Buffer.from([0x08, 0x01]);

class Config implements LoadBalancingConfig {
  static createFromJson(): Config {
    return new Config();
  }
  getLoadBalancerName(): string {
    return HEALTHY_ROUND_ROBIN;
  }
  toJsonObject(): object {
    return { [HEALTHY_ROUND_ROBIN]: {} };
  }
}

class HealthyRoundRobin implements experimental.LoadBalancer {
  readonly #child: experimental.ChildLoadBalancerHandler;
  readonly #roundRobin = experimental.parseLoadBalancingConfig({ round_robin: {} });
  #hasSeveral = false;

  constructor(helper: ChannelControlHelper) {
    const createSubchannel: ChannelControlHelper["createSubchannel"] = (address, args) => {
      const subchannel = helper.createSubchannel(address, args);
      // With one server there is no other to turn to, and what it answers says more than that it is not healthy.
      return this.#hasSeveral ? new CheckedSubchannel(subchannel) : subchannel;
    };
    this.#child = new experimental.ChildLoadBalancerHandler(experimental.createChildChannelControlHelper(helper, { createSubchannel }));
  }

  updateAddressList(endpoints: Endpoints, _: LoadBalancingConfig, options: ChannelOptions, note: string): boolean {
    if (endpoints.ok) this.#hasSeveral = endpoints.value.length > 1;
    return this.#child.updateAddressList(endpoints, this.#roundRobin, options, note);
  }
  exitIdle(): void {
    this.#child.exitIdle();
  }
  resetBackoff(): void {
    this.#child.resetBackoff();
  }
  destroy(): void {
    this.#child.destroy();
  }
  getTypeName(): string {
    return HEALTHY_ROUND_ROBIN;
  }
}

/** A connection to one server, healthy until a check says otherwise. Checks run while it is connected. */
class CheckedSubchannel extends experimental.BaseSubchannelWrapper {
  readonly #client: Client;
  #timer: NodeJS.Timeout | undefined;

  constructor(child: Subchannel) {
    super(child);
    this.#client = new Client("health", credentials.createInsecure(), { channelOverride: child.getChannel() });
    child.addConnectivityStateListener(this.#onState);
    if (child.getConnectivityState() === connectivityState.READY) this.#start();
  }

  protected override destroy(): void {
    this.child.removeConnectivityStateListener(this.#onState);
    this.#stop();
    super.destroy();
  }

  readonly #onState: experimental.ConnectivityStateListener = (_subchannel, _previous, state) => {
    this.#stop();
    if (state === connectivityState.READY) this.#start();
    else this.setHealthy(true);
  };

  #start(): void {
    this.#check();
    this.#timer = setInterval(() => this.#check(), INTERVAL_MILLIS).unref();
  }

  #stop(): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
  }

  #check(): void {
    const timer = this.#timer;
    const bytes = (value: Buffer): Buffer => value;
    const deadline = Date.now() + DEADLINE_MILLIS;
    this.#client.makeUnaryRequest(CHECK, bytes, bytes, Buffer.alloc(0), { deadline }, (error, answer) => {
      if (this.#timer === undefined || (timer !== undefined && timer !== this.#timer)) return;
      // A server without health checks is taken as healthy, as in gRFC A17.
      this.setHealthy(error === null ? answer?.equals(SERVING) === true : error.code === status.UNIMPLEMENTED);
    });
  }
}

experimental.registerLoadBalancerType(HEALTHY_ROUND_ROBIN, HealthyRoundRobin, Config);
