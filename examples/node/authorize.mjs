// Asks Scopeward its three questions, as an authorization server does, and fails closed.
//
//     npm ci --prefix examples/node && node examples/node/authorize.mjs
//
// An error, a deadline or an answer that is not understood is a denial, and never `invalid_scope`: the client asked
// nothing wrong. The API is read from `proto/` at start, so nothing is generated beforehand.
import { randomUUID } from "node:crypto";
import { fileURLToPath } from "node:url";
import grpc from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";

const proto = fileURLToPath(new URL("../../proto", import.meta.url));
const options = { includeDirs: [proto], keepCase: true, enums: String, longs: String, defaults: true };
const { scopeward } = grpc.loadPackageDefinition(loadSync("scopeward/v1/scope_policy.proto", options));

const server = (process.env.SCOPEWARD_SERVER ?? "http://127.0.0.1:50551").replace("http://", "");
const deadlineMillis = 2000; // gRPC has none unless it is given
// After an outage the library would wait up to two minutes before it connects again; with these it is back in 0.6 s.
const channelOptions = {
  "grpc.initial_reconnect_backoff_ms": 100,
  "grpc.max_reconnect_backoff_ms": 1000,
};
const policy = new scopeward.v1.ScopePolicyService(server, grpc.credentials.createInsecure(), channelOptions);

// Resolves to { scope }, or to { error, error_description } with the OAuth error to send to the client. Never rejects.
function decide(method, request, unanswered) {
  return new Promise((resolve) => {
    policy[method](request, { deadline: Date.now() + deadlineMillis }, (problem, answer) => {
      if (problem) {
        console.error(`no answer: ${grpc.status[problem.code]}: ${problem.details}`);
        resolve({ error: unanswered });
      } else if (answer.decision === "DECISION_ALLOW" && answer.scope) {
        resolve({ scope: answer.scope });
      } else if (answer.decision === "DECISION_DENY" && answer.oauth_error?.error) {
        resolve(answer.oauth_error);
      } else {
        resolve({ error: unanswered }); // a decision that this client does not know is none
      }
    });
  });
}

// The whole client, the same each time: a rule of the policy holds only for what is sent.
function clientOf(metadata, clientId) {
  const { client_name, software_id, software_version, redirect_uris, grant_types, application_type } = metadata;
  const known = { client_name, software_id, software_version, redirect_uris, grant_types, application_type };
  return { client_id: clientId, source: "CLIENT_SOURCE_DCR", ...known };
}

// At `POST /register`: store the scope and return it to the client (RFC 7591 section 3.2.1). At an update (RFC 7592)
// `stored` is the client as stored. Names are spelled as in the proto: the loader drops what it does not know.
function register(metadata, stored) {
  const request = { scope: metadata.scope, client: clientOf(metadata), previous_scope: stored?.scope };
  return decide("ExpandRegistrationScopes", request, "server_error");
}

// At `GET /authorize`: leave out a scope that was not sent. Without `registered_scope` we would say that we do not know
// what the client registered. The answer's `effective_registered_scope` is never stored.
function authorize(stored, scope, audiences, login) {
  const client = clientOf(stored.metadata, stored.client_id);
  const request = { audiences, scope, registered_scope: stored.scope, client, correlation_id: login };
  return decide("CheckAuthorizeScopes", request, "temporarily_unavailable");
}

// At `POST /token`, once the refresh token is found to be good and before it is used up. Nothing is added here. `granted` is the
// scope stored with the refresh token, and stays stored with the new one, whatever the answer has.
function refresh(stored, granted, scope, audiences, login) {
  const client = clientOf(stored.metadata, stored.client_id);
  const request = { grant: "TOKEN_GRANT_REFRESH", audiences, scope, granted_scope: granted, client, correlation_id: login };
  return decide("CheckTokenScopes", request, "temporarily_unavailable");
}

const tool = { client_name: "Example Tool", scope: "openid", redirect_uris: ["http://127.0.0.1:33418/callback"] };
let answer = await register(tool);
console.log("registered:", answer.scope ?? answer);
if (answer.scope) {
  const stored = { client_id: "example-tool", scope: answer.scope, metadata: tool };
  const [audiences, login] = [["https://mcp.example.com"], randomUUID()];
  answer = await authorize(stored, "openid offline_access", audiences, login);
  console.log("authorized:", answer.scope ?? answer);
  if (answer.scope) {
    answer = await refresh(stored, answer.scope, undefined, audiences, login);
    console.log("refreshed:", answer.scope ?? answer);
  }
}
policy.close();
process.exitCode = answer.error ? 3 : 0;
