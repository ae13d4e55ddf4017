package dev.scopeward.keycloak;

import dev.scopeward.client.ClientSource;
import dev.scopeward.client.OAuthClient;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collection;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.function.UnaryOperator;
import org.keycloak.models.ClientModel;
import org.keycloak.models.ClientScopeModel;
import org.keycloak.models.RealmModel;
import org.keycloak.representations.idm.ClientRepresentation;

/** What Keycloak knows of a client, as Scopeward wants it, and where Keycloak keeps what the client registered. */
final class ClientFacts {
    /**
     * The client attribute with the registered scope as Scopeward answered it. The client's own lists lose {@code openid} and the order,
     * and have scopes that were granted later as well.
     */
    static final String REGISTERED_SCOPE = "scopeward.registered-scope";

    static final String OPENID = "openid";
    private static final String PROTOCOL = "openid-connect";

    // Attributes that say that a client may use a grant, and the grant.
    private static final Map<String, String> GRANTS_BY_ATTRIBUTE = Map.of(
            "use.refresh.tokens", "refresh_token",
            "oauth2.device.authorization.grant.enabled", "urn:ietf:params:oauth:grant-type:device_code",
            "oidc.ciba.grant.enabled", "urn:openid:params:grant-type:ciba",
            "standard.token.exchange.enabled", "urn:ietf:params:oauth:grant-type:token-exchange");

    private ClientFacts() {}

    /** The tokens of a scope, in order, each once (RFC 6749 section 3.3). */
    static Set<String> tokens(String scope) {
        Set<String> tokens = new LinkedHashSet<>(Arrays.asList(scope.split(" ")));
        tokens.remove("");
        return tokens;
    }

    /** Whether scopes mean anything for the client: not for one of SAML. */
    static boolean isOpenIdConnect(String protocol) {
        return protocol == null || protocol.equals(PROTOCOL);
    }

    static ClientScopeModel findScope(RealmModel realm, String name) {
        return realm.getClientScopesStream()
                .filter(scope -> name.equals(scope.getName()) && isOpenIdConnect(scope.getProtocol()))
                .findFirst()
                .orElse(null);
    }

    /** The client of a registration. A flag that it leaves out is one that Keycloak sets or not by itself. */
    static OAuthClient of(ClientRepresentation client, ClientSource source) {
        List<String> grants = new ArrayList<>();
        add(grants, "authorization_code", !Boolean.FALSE.equals(client.isStandardFlowEnabled()));
        add(grants, "implicit", Boolean.TRUE.equals(client.isImplicitFlowEnabled()));
        add(grants, "password", Boolean.TRUE.equals(client.isDirectAccessGrantsEnabled()));
        add(grants, "client_credentials", Boolean.TRUE.equals(client.isServiceAccountsEnabled()));
        Map<String, String> attributes = client.getAttributes() == null ? Map.of() : client.getAttributes();
        return client(client.getClientId(), source, client.getName(), client.getRedirectUris(), grants, attributes::get);
    }

    static OAuthClient of(ClientModel client) {
        List<String> grants = new ArrayList<>();
        add(grants, "authorization_code", client.isStandardFlowEnabled());
        add(grants, "implicit", client.isImplicitFlowEnabled());
        add(grants, "password", client.isDirectAccessGrantsEnabled());
        add(grants, "client_credentials", client.isServiceAccountsEnabled());
        return client(client.getClientId(), source(client), client.getName(), client.getRedirectUris(), grants, client::getAttribute);
    }

    private static void add(List<String> grants, String grant, boolean isAllowed) {
        if (isAllowed) {
            grants.add(grant);
        }
    }

    private static OAuthClient client(
            String clientId,
            ClientSource source,
            String name,
            Collection<String> redirectUris,
            List<String> grants,
            UnaryOperator<String> attribute) {
        GRANTS_BY_ATTRIBUTE.entrySet().stream()
                .filter(grant -> "true".equals(attribute.apply(grant.getKey())))
                .map(Map.Entry::getValue)
                .sorted()
                .forEach(grants::add);
        List<String> uris = redirectUris == null ? null : redirectUris.stream().sorted().toList();
        return new OAuthClient(clientId, source, name, null, null, uris, grants, null);
    }

    /** Where a stored client is from: its id is the URL of its metadata, or it registered, or an administrator made it. */
    static ClientSource source(ClientModel client) {
        if (client.getClientId().regionMatches(true, 0, "https://", 0, 8)) {
            return ClientSource.CIMD;
        }
        boolean isRegistered = client.getRegistrationToken() != null || client.getAttribute(REGISTERED_SCOPE) != null;
        return isRegistered ? ClientSource.DCR : ClientSource.STATIC;
    }

    /** What a stored client registered: as Scopeward answered it, else all that Keycloak lets it ask for. */
    static String registeredScope(ClientModel client) {
        String kept = client.getAttribute(REGISTERED_SCOPE);
        if (kept != null) {
            return kept;
        }
        Set<String> names = new LinkedHashSet<>(client.getClientScopes(true).keySet());
        names.addAll(client.getClientScopes(false).keySet());
        return String.join(" ", names.stream().sorted().toList());
    }
}
