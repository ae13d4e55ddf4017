package dev.scopeward.keycloak;

import dev.scopeward.client.TokenGrant;
import dev.scopeward.client.TokenQuestion;
import jakarta.ws.rs.WebApplicationException;
import jakarta.ws.rs.core.MultivaluedMap;
import jakarta.ws.rs.core.Response;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.function.Supplier;
import org.keycloak.events.EventBuilder;
import org.keycloak.models.AuthenticatedClientSessionModel;
import org.keycloak.models.ClientModel;
import org.keycloak.models.KeycloakSession;
import org.keycloak.models.RealmModel;
import org.keycloak.models.UserSessionModel;
import org.keycloak.protocol.oidc.JWTAuthorizationGrantValidationContext;
import org.keycloak.protocol.oidc.OIDCAdvancedConfigWrapper;
import org.keycloak.protocol.oidc.TokenManager;
import org.keycloak.protocol.oidc.grants.OAuth2GrantType;
import org.keycloak.representations.AccessToken;
import org.keycloak.representations.AccessTokenResponse;
import org.keycloak.representations.RefreshToken;
import org.keycloak.services.clientpolicy.context.JWTAuthorizationGrantContext;
import org.keycloak.services.clientpolicy.context.ServiceAccountTokenRequestContext;
import org.keycloak.services.clientpolicy.context.TokenExchangeRequestContext;
import org.keycloak.services.clientpolicy.context.TokenRefreshContext;
import org.keycloak.services.cors.Cors;

/**
 * A client asks at the token endpoint, where nothing is added: a refresh (RFC 6749 section 6), client credentials (section 4.4), a token
 * exchange (RFC 8693), a JWT as grant (RFC 7523, ID-JAG).
 *
 * <p>Without a scope parameter all but a refresh get the client's default client scopes, which are not gated, so nothing is asked.
 */
final class TokenEvents {
    private static final String ANSWERED = TokenEvents.class.getName() + ".answered";
    private static final String SCOPE = "scope";

    private final KeycloakSession session;
    private final RealmModel realm;
    private final Supplier<PolicyQuestions> questions;

    TokenEvents(KeycloakSession session, Supplier<PolicyQuestions> questions) {
        this.session = session;
        this.realm = session.getContext().getRealm();
        this.questions = questions;
    }

    /**
     * Asks for what the refresh token stands for, or for the part of it that the client wants. Default client scopes are no part of
     * either: they are not gated.
     */
    void refresh(TokenRefreshContext context) throws RefusedException {
        RefreshToken token = session.tokens().decode(context.getParams().getFirst("refresh_token"), RefreshToken.class);
        if (token == null || session.getAttribute(ANSWERED) != null) {
            // Keycloak refuses what it did not issue; and this request was decided.
            return;
        }
        ClientModel client = context.getClient();
        Set<String> defaults = client.getClientScopes(true).keySet();
        Set<String> granted = tokens(token.getScope());
        granted.removeAll(defaults);
        Set<String> asked = tokens(context.getScopeParameter());
        boolean isOmitted = asked.isEmpty();
        asked.removeAll(defaults);
        if (granted.isEmpty() || asked.isEmpty() && !isOmitted) {
            return;
        }
        AuthenticatedClientSessionModel login = login(token, client);
        List<String> resources = context.getParams().get("resource");
        if (resources == null && login != null && login.getNote("resource") != null) {
            resources = List.of(login.getNote("resource"));
        }
        TokenQuestion.Builder question = TokenQuestion.builder(TokenGrant.REFRESH)
                .scope(isOmitted ? null : String.join(" ", asked))
                .grantedScope(String.join(" ", granted));
        // The id that the login had.
        Set<String> answer = login == null
                ? questions.get().ask(client, question, resources, client.getClientId())
                : questions.get().ask(client, question, resources, client.getClientId(), login.getRedirectUri(), login.getNote("state"),
                        login.getNote("code_challenge"), login.getNote("nonce"));
        if (!answer.containsAll(isOmitted ? granted : asked)) {
            granted.removeAll(answer);
            throw again(context.getParams(), client, answer, granted);
        }
    }

    void serviceAccount(ServiceAccountTokenRequestContext context) throws RefusedException {
        MultivaluedMap<String, String> parameters = context.getParams();
        Set<String> asked = tokens(parameters.getFirst(SCOPE));
        if (asked.isEmpty() || session.getAttribute(ANSWERED) != null) {
            return;
        }
        AuthenticatedClientSessionModel account = context.getClientSession();
        TokenQuestion.Builder question = TokenQuestion.builder(TokenGrant.CLIENT_CREDENTIALS).scope(parameters.getFirst(SCOPE));
        ClientModel client = account.getClient();
        Set<String> answer = questions.get().ask(client, question, parameters.get("resource"), client.getClientId());
        if (!answer.containsAll(asked)) {
            UserSessionModel unused = account.getUserSession();
            if (unused.getPersistenceState() != UserSessionModel.SessionPersistenceState.TRANSIENT) {
                session.sessions().removeUserSession(realm, unused);
            }
            asked.removeAll(answer);
            throw again(parameters, client, answer, asked);
        }
    }

    /** Keycloak reads the parameter again after this. */
    void exchange(TokenExchangeRequestContext context) throws RefusedException {
        MultivaluedMap<String, String> parameters = context.getTokenExchangeContext().getFormParams();
        if (tokens(parameters.getFirst(SCOPE)).isEmpty()) {
            return;
        }
        AccessToken subject =
                session.tokens().decode(context.getTokenExchangeContext().getParams().getSubjectToken(), AccessToken.class);
        if (subject == null) {
            throw RefusedException.unknownSubject();
        }
        TokenQuestion.Builder question = TokenQuestion.builder(TokenGrant.TOKEN_EXCHANGE)
                .scope(parameters.getFirst(SCOPE))
                .grantedScope(String.join(" ", tokens(subject.getScope())));
        ClientModel client = context.getClient();
        Set<String> answer = questions.get().ask(client, question, parameters.get("resource"), client.getClientId());
        parameters.putSingle(SCOPE, String.join(" ", answer));
    }

    /** Keycloak has read the parameter, and leaves out of the token what is not among the restricted scopes, but for {@code openid}. */
    void assertion(JWTAuthorizationGrantContext context) throws RefusedException {
        JWTAuthorizationGrantValidationContext grant = context.getAuthorizationGrantContext();
        Set<String> asked = tokens(context.getScopeParameter());
        if (asked.isEmpty()) {
            return;
        }
        TokenQuestion.Builder question = TokenQuestion.builder(TokenGrant.JWT_BEARER).scope(context.getScopeParameter());
        if (grant.getJWT().getOtherClaims().get(SCOPE) instanceof String granted) {
            question.grantedScope(granted);
        }
        ClientModel client = context.getClient();
        Set<String> answer = questions.get().ask(client, question, null, client.getClientId());
        if (asked.contains(ClientFacts.OPENID) && !answer.contains(ClientFacts.OPENID)) {
            throw RefusedException.narrower();
        }
        if (!answer.containsAll(asked)) {
            Set<String> allowed = new HashSet<>(answer);
            allowed.addAll(client.getClientScopes(true).keySet());
            if (grant.getRestrictedScopes() != null) {
                allowed.retainAll(grant.getRestrictedScopes());
            }
            grant.setRestrictedScopes(allowed);
        }
    }

    private static Set<String> tokens(String scope) {
        return ClientFacts.tokens(scope == null ? "" : scope);
    }

    private AuthenticatedClientSessionModel login(RefreshToken token, ClientModel client) {
        if (token.getSessionId() == null) {
            return null;
        }
        UserSessionModel user = session.sessions().getUserSession(realm, token.getSessionId());
        if (user == null) {
            user = session.sessions().getOfflineUserSession(realm, token.getSessionId());
        }
        return user == null ? null : user.getAuthenticatedClientSessionByClient(client.getId());
    }

    /**
     * Keycloak has read the scope before this event, and lets nobody change it. So the request is answered once more, as if the client had
     * asked for what is granted, and that is the answer.
     */
    private WebApplicationException again(
            MultivaluedMap<String, String> parameters, ClientModel client, Set<String> granted, Set<String> dropped) {
        String grantType = parameters.getFirst("grant_type");
        parameters.putSingle(SCOPE, String.join(" ", granted));
        session.setAttribute(ANSWERED, Boolean.TRUE);
        OAuth2GrantType grant = session.getProvider(OAuth2GrantType.class, grantType);
        EventBuilder event = new EventBuilder(realm, session, session.getContext().getConnection())
                .event(grant.getEventType())
                .client(client)
                .detail("grant_type", grantType)
                .detail("client_auth_method", client.getClientAuthenticatorType());
        Cors cors = Cors.builder().auth().allowedMethods("POST").auth().exposedHeaders(Cors.ACCESS_CONTROL_ALLOW_METHODS);
        Response response = grant.process(new OAuth2GrantType.Context(session, OIDCAdvancedConfigWrapper.fromClientModel(client), Map.of(),
                parameters, event, cors.checkAllowedOrigins(session, client), new TokenManager()));
        if (response.getEntity() instanceof AccessTokenResponse issued) {
            Set<String> told = tokens(issued.getScope());
            if (told.removeAll(dropped)) {
                // With an offline token Keycloak tells all that it stands for, and makes the ID token by that. The access token is right.
                issued.setScope(String.join(" ", told));
                issued.setIdToken(null);
            }
        }
        return new WebApplicationException(response);
    }
}
