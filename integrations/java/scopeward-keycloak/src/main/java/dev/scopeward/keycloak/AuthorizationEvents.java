package dev.scopeward.keycloak;

import jakarta.ws.rs.WebApplicationException;
import jakarta.ws.rs.core.MediaType;
import jakarta.ws.rs.core.MultivaluedMap;
import jakarta.ws.rs.core.Response;
import java.net.URI;
import java.net.URLEncoder;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.List;
import java.util.Objects;
import java.util.Set;
import java.util.function.Supplier;
import java.util.stream.Collectors;
import org.jboss.logging.Logger;
import org.keycloak.events.EventBuilder;
import org.keycloak.events.EventType;
import org.keycloak.models.ClientModel;
import org.keycloak.models.ClientScopeModel;
import org.keycloak.models.KeycloakSession;
import org.keycloak.models.RealmModel;
import org.keycloak.protocol.oidc.endpoints.request.AuthorizationEndpointRequest;
import org.keycloak.protocol.oidc.par.clientpolicy.context.PushedAuthorizationRequestContext;
import org.keycloak.protocol.oidc.utils.OIDCRedirectUriBuilder;
import org.keycloak.protocol.oidc.utils.OIDCResponseMode;
import org.keycloak.protocol.oidc.utils.OIDCResponseType;
import org.keycloak.protocol.oidc.utils.RedirectUtils;
import org.keycloak.services.Urls;
import org.keycloak.services.clientpolicy.context.AuthorizationRequestContext;
import org.keycloak.services.clientpolicy.context.PreAuthorizationRequestContext;

/**
 * A client asks at the authorize endpoint, or pushes its request (RFC 9126).
 *
 * <p>Keycloak compares the scope with the client's own lists, before the event that has the whole request and after the one that has its
 * parameters. So the first one decides, and makes the client's lists and the parameters agree with the answer; the second one decides
 * again where the scope is another one, such as that of a request object, which wins over the parameter and which nobody can change.
 */
final class AuthorizationEvents {
    private static final Logger LOG = Logger.getLogger(AuthorizationEvents.class);
    private static final String DECIDED = AuthorizationEvents.class.getName() + ".decided";

    private final KeycloakSession session;
    private final RealmModel realm;
    private final Supplier<PolicyQuestions> questions;

    /** What was asked in this request, and the answer. The scope is null if it was omitted. */
    private record Decided(String clientId, String scope, List<String> resources, String granted) {}

    AuthorizationEvents(KeycloakSession session, Supplier<PolicyQuestions> questions) {
        this.session = session;
        this.realm = session.getContext().getRealm();
        this.questions = questions;
    }

    void beforeRequest(PreAuthorizationRequestContext context) throws RefusedException {
        MultivaluedMap<String, String> parameters = context.getRequestParameters();
        ClientModel client = context.getClientId() == null ? null : realm.getClientByClientId(context.getClientId());
        if (client == null || !ClientFacts.isOpenIdConnect(client.getProtocol())) {
            // Keycloak refuses the request itself; if another executor makes the client now, the next event decides.
            return;
        }
        if (parameters.containsKey("request") || parameters.containsKey("request_uri")) {
            // The scope that counts is in there: the next event has it.
            return;
        }
        String redirectUri = RedirectUtils.verifyRedirectUri(session, parameters.getFirst("redirect_uri"), client);
        if (redirectUri == null) {
            // Keycloak refuses the request itself, with a page: there is nobody to redirect to.
            return;
        }
        String scope = scope(parameters.getFirst("scope"));
        String granted;
        try {
            granted = decide(client, scope, parameters.get("resource"), parameters.getFirst("redirect_uri"),
                    parameters.getFirst("state"), parameters.getFirst("code_challenge"), parameters.getFirst("nonce"));
        } catch (RefusedException refused) {
            throw errorRedirect(client, redirectUri, parameters, refused);
        }
        assign(client, granted);
        if (scope == null || isGrantedAsItIs(scope, granted)) {
            return;
        }
        if (session.getContext().getHttpRequest().getHttpMethod().equals("POST")) {
            parameters.putSingle("scope", granted);
            session.setAttribute(DECIDED, new Decided(client.getClientId(), granted, parameters.get("resource"), granted));
        } else {
            throw redirectToItself(granted);
        }
    }

    void request(AuthorizationRequestContext context) throws RefusedException {
        AuthorizationEndpointRequest request = context.getAuthorizationEndpointRequest();
        ClientModel client = context.getAuthenticationSession().getClient();
        String scope = scope(request.getScope());
        List<String> resources = request.getResource() == null
                ? context.getRequestParameters().get("resource")
                : List.of(request.getResource());
        String granted = decide(client, scope, resources, request.getRedirectUri(), request.getState(), request.getCodeChallenge(),
                request.getNonce());
        if (scope == null) {
            assign(client, granted);
            context.getAuthenticationSession().setClientNote("scope", granted);
        } else {
            refuseNarrower(scope, granted);
        }
    }

    void pushed(PushedAuthorizationRequestContext context) throws RefusedException {
        AuthorizationEndpointRequest request = context.getRequest();
        MultivaluedMap<String, String> parameters = context.getRequestParameters();
        String scope = scope(request.getScope());
        List<String> resources = request.getResource() == null ? parameters.get("resource") : List.of(request.getResource());
        String granted = decide(context.getClient(), scope, resources, request.getRedirectUri(), request.getState(),
                request.getCodeChallenge(), request.getNonce());
        if (parameters.containsKey("request")) {
            refuseNarrower(scope == null ? "" : scope, granted);
        } else {
            assign(context.getClient(), granted);
            parameters.putSingle("scope", granted);
        }
    }

    /** What Keycloak has read it takes over after the event: a scope that is not a parameter is granted whole, or not at all. */
    private static void refuseNarrower(String scope, String granted) throws RefusedException {
        if (!ClientFacts.tokens(granted).containsAll(ClientFacts.tokens(scope))) {
            throw RefusedException.narrower();
        }
    }

    /** Keycloak refuses a scope with a blank too many. */
    private static boolean isGrantedAsItIs(String scope, String granted) {
        Set<String> asked = ClientFacts.tokens(scope);
        return asked.equals(ClientFacts.tokens(granted)) && scope.length() == String.join(" ", asked).length();
    }

    /** RFC 6749 section 3.1: a parameter without a value counts as omitted. */
    private static String scope(String parameter) {
        return parameter == null || ClientFacts.tokens(parameter).isEmpty() ? null : parameter;
    }

    private String decide(ClientModel client, String scope, List<String> resources, String... login) throws RefusedException {
        if (session.getAttribute(DECIDED) instanceof Decided decided
                && decided.clientId.equals(client.getClientId())
                && Objects.equals(decided.scope, scope)
                && Objects.equals(decided.resources, resources)) {
            return decided.granted;
        }
        String[] whole = new String[login.length + 1];
        whole[0] = client.getClientId();
        System.arraycopy(login, 0, whole, 1, login.length);
        String granted = questions.get().ask(client, scope, resources, whole);
        session.setAttribute(DECIDED, new Decided(client.getClientId(), scope, resources, granted));
        return granted;
    }

    /**
     * Gives the client what it was granted and does not have, as optional scopes: Keycloak reads its lists again for the code and for each
     * refresh. What it registered is kept first, since the lists then have more.
     */
    private void assign(ClientModel client, String granted) {
        Set<String> missing = ClientFacts.tokens(granted);
        missing.removeAll(client.getClientScopes(true).keySet());
        missing.removeAll(client.getClientScopes(false).keySet());
        for (String name : missing) {
            ClientScopeModel scope = ClientFacts.findScope(realm, name);
            if (scope != null) {
                if (client.getAttribute(ClientFacts.REGISTERED_SCOPE) == null) {
                    client.setAttribute(ClientFacts.REGISTERED_SCOPE, ClientFacts.registeredScope(client));
                }
                client.addClientScope(scope, false);
            } else if (!name.equals(ClientFacts.OPENID)) {
                LOG.warnf("the policy grants the scope `%s`, and realm `%s` has no client scope of that name", name, realm.getName());
            }
        }
    }

    /** Keycloak lets nobody change the parameters of a GET: the browser asks again, with what is granted. */
    private WebApplicationException redirectToItself(String granted) {
        URI asked = session.getContext().getUri().getRequestUri();
        String others = Arrays.stream(asked.getRawQuery().split("&"))
                .filter(parameter -> !parameter.startsWith("scope="))
                .map(parameter -> parameter + "&")
                .collect(Collectors.joining());
        String scope = URLEncoder.encode(granted, StandardCharsets.UTF_8);
        URI again = URI.create(asked.toString().split("[?]", 2)[0] + "?" + others + "scope=" + scope);
        return new WebApplicationException(Response.seeOther(again).entity("").type(MediaType.TEXT_PLAIN_TYPE).build());
    }

    /** Keycloak would show a page. The redirect URI was validated (RFC 6749 section 4.1.2.1, RFC 9207 for {@code iss}). */
    private WebApplicationException errorRedirect(
            ClientModel client, String redirectUri, MultivaluedMap<String, String> parameters, RefusedException refused) {
        // Storing an event is half of the work of a refusal, and where nobody is asked there are many; the gate counts them.
        if (refused.isAsked()) {
            new EventBuilder(realm, session, session.getContext().getConnection())
                    .event(EventType.LOGIN)
                    .client(client)
                    .detail("redirect_uri", redirectUri)
                    .detail("reason", refused.description())
                    .error(refused.error());
        }
        OIDCRedirectUriBuilder answer = OIDCRedirectUriBuilder.fromUri(redirectUri, responseMode(parameters), session, null)
                .addParam("error", refused.error())
                .addParam("error_description", refused.description());
        if (parameters.getFirst("state") != null) {
            answer.addParam("state", parameters.getFirst("state"));
        }
        if (!"true".equals(client.getAttribute("exclude.issuer.from.auth.response"))) {
            answer.addParam("iss", Urls.realmIssuer(session.getContext().getUri().getBaseUri(), realm.getName()));
        }
        Response response = answer.build();
        if (response.getMediaType() == null) {
            response = Response.fromResponse(response).entity("").type(MediaType.TEXT_PLAIN_TYPE).build();
        }
        return new WebApplicationException(response);
    }

    private static OIDCResponseMode responseMode(MultivaluedMap<String, String> parameters) {
        String mode = parameters.getFirst("response_mode");
        try {
            return OIDCResponseMode.parse(mode, OIDCResponseType.parse(parameters.getFirst("response_type")));
        } catch (IllegalArgumentException notValid) {
            return OIDCResponseMode.parseWhenInvalidResponseType(mode);
        }
    }
}
