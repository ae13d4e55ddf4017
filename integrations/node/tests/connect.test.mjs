// Stock Connect clients of Node against `serve --http-listen`: both forms of messages over both versions of HTTP.

import assert from "node:assert/strict";
import { test } from "node:test";

import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-node";

import { ErrorInfoSchema } from "../dist/proto/google/rpc/errors_pb.js";
import { PolicyStatusService } from "../dist/proto/scopeward/v1/policy_status_pb.js";
import { Decision, Origin, ScopePolicyService } from "../dist/proto/scopeward/v1/scope_policy_pb.js";
import { RESOURCE } from "../examples/demo.mjs";
import { started } from "./service.mjs";

for (const httpVersion of /** @type {const} */ (["1.1", "2"])) {
  for (const useBinaryFormat of [false, true]) {
    test(`a Connect client asks over HTTP/${httpVersion} with ${useBinaryFormat ? "protobuf" : "JSON"}`, async (t) => {
      const service = await started(t, { args: ["--http-listen", "127.0.0.1:0"] });
      const transport = createConnectTransport({ baseUrl: `http://${service.http}`, httpVersion, useBinaryFormat });
      const scopes = createClient(ScopePolicyService, transport);

      const registered = await scopes.expandRegistrationScopes({ audiences: [RESOURCE], scope: "openid" });
      assert.equal(registered.decision, Decision.ALLOW);
      assert.equal(registered.scope, "openid offline_access");
      assert.deepEqual(registered.added.map(({ scope, origin }) => [scope, origin]), [["offline_access", Origin.BASELINE]]);

      const check = { audiences: [RESOURCE], registeredScope: registered.scope };
      const allowed = await scopes.checkAuthorizeScopes({ ...check, scope: registered.scope }, { timeoutMs: 5000 });
      assert.equal(allowed.scope, registered.scope);
      const denied = await scopes.checkAuthorizeScopes({ ...check, scope: "root" });
      assert.equal(denied.decision, Decision.DENY);
      assert.equal(denied.oauthError?.error, "invalid_scope");

      const batch = await scopes.batchCheckAuthorizeScopes({ checks: [check, { audiences: ["nobody"] }] });
      assert.deepEqual(batch.results.map(({ result }) => result.case === "response" && result.value.decision), [Decision.ALLOW, Decision.DENY]);
      const { audiences } = await scopes.describeAudience({});
      assert.deepEqual(audiences.map(({ audience }) => audience), [RESOURCE]);
      const { status } = await createClient(PolicyStatusService, transport).getPolicyStatus({});
      assert.equal(status?.active?.digest, denied.policy?.digest);

      await assert.rejects(scopes.describeAudience({ audience: "https://nobody.example.com" }), (error) => {
        assert(error instanceof ConnectError);
        assert.equal(error.code, Code.NotFound);
        const [info] = error.findDetails(ErrorInfoSchema);
        assert.equal(info?.reason, "AUDIENCE_NOT_FOUND");
        assert.equal(info?.domain, "scopeward");
        return true;
      });
      // A stream is not served, and the client says so by the code for that.
      const watching = createClient(PolicyStatusService, transport).watchPolicyStatus({})[Symbol.asyncIterator]();
      await assert.rejects(watching.next(), (error) => error instanceof ConnectError && error.code === Code.Unimplemented);

      assert.deepEqual((await service.expansions()).map(({ method }) => method), ["/scopeward.v1.ScopePolicyService/ExpandRegistrationScopes"]);
    });
  }
}
