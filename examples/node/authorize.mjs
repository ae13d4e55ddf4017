// Asks Scopeward both questions, as an authorization server does, and fails closed.
//
//     npm ci --prefix examples/node && node examples/node/authorize.mjs
//
// An error, a deadline or an answer that is not understood is a denial, and never `invalid_scope`: the client asked
// nothing wrong. The API is read from `proto/` at start, so nothing is generated beforehand.
import { fileURLToPath } from "node:url";
import grpc from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";

const proto = fileURLToPath(new URL("../../proto", import.meta.url));
const options = { includeDirs: [proto], keepCase: true, enums: String, longs: String, defaults: true };
const { scopeward } = grpc.loadPackageDefinition(loadSync("scopeward/v1/scope_policy.proto", options));

const server = (process.env.SCOPEWARD_SERVER ?? "http://127.0.0.1:50551").replace("http://", "");
const deadlineMillis = 2000; // gRPC has none unless it is given
const policy = new scopeward.v1.ScopePolicyService(server, grpc.credentials.createInsecure());

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

// At `POST /register`: store the scope and return it to the client (RFC 7591 section 3.2.1).
function register(metadata) {
  const client = { source: "CLIENT_SOURCE_DCR", client_name: metadata.client_name };
  return decide("ExpandRegistrationScopes", { scope: metadata.scope, client }, "server_error");
}

// At `GET /authorize`: leave out a scope that was not sent, or a registration that is unknown.
function authorize(request) {
  return decide("CheckAuthorizeScopes", request, "temporarily_unavailable");
}

let answer = await register({ client_name: "Example Tool", scope: "openid" });
console.log("registered:", answer.scope ?? answer);
if (answer.scope) {
  const audiences = ["https://mcp.example.com"];
  answer = await authorize({ audiences, scope: "openid offline_access", registered_scope: answer.scope });
  console.log("authorized:", answer.scope ?? answer);
}
policy.close();
process.exitCode = answer.error ? 3 : 0;
