#!/usr/bin/env bash
# Sets up a realm of Keycloak that asks Scopeward: client scopes, registration, client policies. It can be run again.
#
# KEYCLOAK_URL, ADMIN_USER and ADMIN_PASSWORD say where, REALM which, SCOPES what the policy supports, AUDIENCES which resources the
# realm is for (empty: the policy's default), TRUSTED_HOSTS from where clients may register, DOCUMENT_HOSTS where metadata documents and
# their redirect URIs may be (empty: no documents), DEADLINE what a question may take. DEMO_USER makes a user of that name, with that
# password. EXECUTOR is the executor's id; empty for a realm behind `scopeward gateway`, which does not ask itself. SERVICE_ACCOUNT,
# CLIENT_ID:SECRET, makes an account for that gateway, which may change clients. Needs curl and jq.
set -euo pipefail
: "${KEYCLOAK_URL:=http://localhost:8080}" "${ADMIN_USER:=admin}" "${ADMIN_PASSWORD:=admin}" "${REALM:=mcp}"
: "${SCOPES:=openid offline_access mcp:read mcp:write}" "${AUDIENCES:=}" "${TRUSTED_HOSTS:=localhost 127.0.0.1}"
: "${DOCUMENT_HOSTS:=}" "${DEADLINE:=300ms}" "${DEMO_USER:=}" "${EXECUTOR=scopeward}" "${SERVICE_ACCOUNT:=}"

log_in() { # for a minute
    token=$(curl -sSf "$KEYCLOAK_URL/realms/master/protocol/openid-connect/token" -d grant_type=password -d client_id=admin-cli \
        --data-urlencode "username=$ADMIN_USER" --data-urlencode "password=$ADMIN_PASSWORD" | jq -r .access_token)
    since=$SECONDS
}
log_in
words() { jq -cn --arg words "$1" '$words | split(" ") | map(select(. != ""))'; }
call() { # METHOD PATH [JSON]
    ((SECONDS - since < 20)) || log_in
    curl -sS --fail-with-body -X "$1" "$KEYCLOAK_URL/admin/realms$2" -H "Authorization: Bearer $token" \
        ${3:+-H "Content-Type: application/json" -d "$3"}
}

call GET "/$REALM" >/dev/null 2>&1 || call POST "" "$(jq -cn --arg realm "$REALM" '{realm: $realm, enabled: true}')"

# Each scope of the policy is a client scope. One named openid lets registration answers have openid, too; tokens get it once. None is a
# default one of the realm: every token has those, whatever the policy says.
known=$(call GET "/$REALM/client-scopes" | jq -c 'map(.name)')
for scope in $SCOPES; do
    jq -e --arg scope "$scope" 'index($scope)' <<<"$known" >/dev/null || call POST "/$REALM/client-scopes" "$(jq -cn --arg scope "$scope" \
        '{name: $scope, protocol: "openid-connect", attributes: {"include.in.token.scope": (if $scope == "openid" then "false" else "true" end)}}')"
done
for id in $(call GET "/$REALM/default-default-client-scopes" | jq -r --argjson scopes "$(words "$SCOPES")" '.[] | select(IN(.name; $scopes[])) | .id'); do
    call DELETE "/$REALM/default-default-client-scopes/$id"
done

# The executor, for every client; before it the one that makes clients of metadata documents. These two replace the whole documents: add
# your own profiles and policies here.
hosts=$(words "$DOCUMENT_HOSTS")
call PUT "/$REALM/client-policies/profiles" "$(jq -cn --argjson hosts "$hosts" --argjson audiences "$(words "$AUDIENCES")" --arg deadline "$DEADLINE" --arg executor "$EXECUTOR" \
    '{profiles: [(select($hosts != []) | {name: "documents", executors: [{executor: "client-id-metadata-document", configuration: {"cimd-allow-permitted-domains": $hosts}}]}),
        (select($executor != "") | {name: "scopeward", executors: [{executor: $executor, configuration: {audiences: $audiences, deadline: $deadline}}]})]}')"
call PUT "/$REALM/client-policies/policies" "$(jq -cn --argjson hosts "$hosts" --arg executor "$EXECUTOR" \
    '{policies: [(select($hosts != []) | {name: "documents", enabled: true, profiles: ["documents"], conditions: [{condition: "client-id-uri",
            configuration: {"client-id-uri-scheme": ["https"], "client-id-uri-allow-permitted-domains": $hosts}}]}),
        (select($executor != "") | {name: "scopeward", enabled: true, conditions: [{condition: "any-client", configuration: {}}], profiles: ["scopeward"]})]}')"
# Registration policies of Keycloak come after ours: they must allow what the policy grants. There is one of each for clients that
# register without and with a token.
call GET "/$REALM/components?type=org.keycloak.services.clientregistration.policy.ClientRegistrationPolicy" |
    jq -c --argjson scopes "$(words "$SCOPES")" --argjson hosts "$(words "$TRUSTED_HOSTS")" '.[]
        | if .providerId == "allowed-client-templates" then .config += {"allowed-client-scopes": $scopes, "allow-default-scopes": ["true"]}
          elif .providerId == "trusted-hosts" then .config += {"trusted-hosts": $hosts}
          else empty end' |
    while read -r component; do
        call PUT "/$REALM/components/$(jq -r .id <<<"$component")" "$component"
    done

client() { call GET "/$REALM/clients?clientId=$1" | jq -r '.[0].id // empty'; }
if [[ -n $SERVICE_ACCOUNT && -z $(client "${SERVICE_ACCOUNT%%:*}") ]]; then
    call POST "/$REALM/clients" "$(jq -cn --arg id "${SERVICE_ACCOUNT%%:*}" --arg secret "${SERVICE_ACCOUNT#*:}" \
        '{clientId: $id, secret: $secret, serviceAccountsEnabled: true, standardFlowEnabled: false}')"
    user=$(call GET "/$REALM/clients/$(client "${SERVICE_ACCOUNT%%:*}")/service-account-user" | jq -r .id)
    management=$(client realm-management)
    call POST "/$REALM/users/$user/role-mappings/clients/$management" \
        "$(call GET "/$REALM/clients/$management/roles/manage-clients" | jq -c '[.]')"
fi

if [[ -n $DEMO_USER && $(call GET "/$REALM/users?exact=true&username=$DEMO_USER") == "[]" ]]; then
    call POST "/$REALM/users" "$(jq -cn --arg name "$DEMO_USER" '{username: $name, enabled: true, firstName: "Demo", lastName: "User",
        email: ($name + "@example.com"), emailVerified: true, credentials: [{type: "password", value: $name, temporary: false}]}')"
fi
echo "realm $REALM asks $([[ -z $EXECUTOR ]] && echo nobody || echo Scopeward)"
