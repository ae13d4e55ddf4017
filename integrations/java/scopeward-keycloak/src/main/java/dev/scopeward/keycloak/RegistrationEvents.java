package dev.scopeward.keycloak;

import dev.scopeward.client.ClientSource;
import jakarta.ws.rs.core.MediaType;
import jakarta.ws.rs.core.Response;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.function.Supplier;
import org.keycloak.models.ClientModel;
import org.keycloak.models.ClientScopeModel;
import org.keycloak.models.KeycloakSession;
import org.keycloak.models.RealmModel;
import org.keycloak.protocol.oauth2.cimd.clientpolicy.context.CimdClientRegisterContext;
import org.keycloak.protocol.oauth2.cimd.clientpolicy.context.CimdClientUpdateContext;
import org.keycloak.representations.idm.ClientRepresentation;
import org.keycloak.representations.idm.OAuth2ErrorRepresentation;
import org.keycloak.services.ErrorResponseException;
import org.keycloak.services.clientpolicy.ClientPolicyException;
import org.keycloak.services.clientpolicy.context.AdminClientRegisterContext;
import org.keycloak.services.clientpolicy.context.AdminClientUpdateContext;
import org.keycloak.services.clientpolicy.context.ClientCRUDContext;

/** A client registers, or updates its registration, or its metadata document was read. */
final class RegistrationEvents {
    private static final String REFUSED = RegistrationEvents.class.getName() + ".refused";

    private final KeycloakSession session;
    private final Supplier<PolicyQuestions> questions;

    RegistrationEvents(KeycloakSession session, Supplier<PolicyQuestions> questions) {
        this.session = session;
        this.questions = questions;
    }

    /** Puts what the client holds into the representation that Keycloak is about to store. */
    void expand(ClientCRUDContext context) throws RefusedException {
        if (context instanceof AdminClientRegisterContext || context instanceof AdminClientUpdateContext) {
            return;
        }
        ClientRepresentation client = context.getProposedClientRepresentation();
        ClientModel stored = context.getTargetClient();
        if (!ClientFacts.isOpenIdConnect(client.getProtocol())) {
            // It gets no scopes; what it says of itself must not count when it becomes a client of OpenID Connect.
            keepRegisteredScope(client, "");
            return;
        }
        boolean isDocument = context instanceof CimdClientRegisterContext || context instanceof CimdClientUpdateContext;
        String scope = client.getOptionalClientScopes() == null ? null : String.join(" ", client.getOptionalClientScopes());
        try {
            String granted = questions.get().expand(
                    ClientFacts.of(client, isDocument ? ClientSource.CIMD : ClientSource.DCR),
                    scope,
                    stored == null ? null : ClientFacts.registeredScope(stored));
            store(client, granted);
        } catch (RefusedException refused) {
            // A metadata document has no answer of its own: the login that made Keycloak read it gets a page.
            if (isDocument) {
                throw refused;
            }
            refuse(client, refused);
        }
    }

    /**
     * Refuses a registration. Keycloak hides the reason of what is refused before it has stored the client, and tells one that comes
     * after that, with an event, and takes the client back. So a denial waits for that; that there is no answer is said at once, since its
     * status would be lost.
     */
    private void refuse(ClientRepresentation client, RefusedException refused) {
        if (refused.status() != 400) {
            throw new ErrorResponseException(response(refused));
        }
        store(client, "");
        session.setAttribute(REFUSED, refused);
    }

    static void refuseRemembered(KeycloakSession session) throws ClientPolicyException {
        if (session.removeAttribute(REFUSED) instanceof RefusedException refused) {
            throw new ClientPolicyException(refused.error(), refused.description());
        }
    }

    private void store(ClientRepresentation client, String granted) {
        RealmModel realm = session.getContext().getRealm();
        // Keycloak drops the defaults of the realm where a client brings optional scopes alone.
        List<String> defaults = new ArrayList<>(
                realm.getDefaultClientScopesStream(true).map(ClientScopeModel::getName).toList());
        Set<String> elsewhere = new HashSet<>(defaults);
        if (ClientFacts.findScope(realm, ClientFacts.OPENID) == null) {
            elsewhere.add(ClientFacts.OPENID);
        }
        List<String> optional = new ArrayList<>(ClientFacts.tokens(granted));
        optional.removeAll(elsewhere);
        client.setDefaultClientScopes(defaults);
        client.setOptionalClientScopes(optional);
        keepRegisteredScope(client, granted);
    }

    private static void keepRegisteredScope(ClientRepresentation client, String granted) {
        Map<String, String> attributes = new HashMap<>(client.getAttributes() == null ? Map.of() : client.getAttributes());
        attributes.put(ClientFacts.REGISTERED_SCOPE, granted);
        client.setAttributes(attributes);
    }

    private static Response response(RefusedException refused) {
        Response.ResponseBuilder response = Response.status(refused.status())
                .type(MediaType.APPLICATION_JSON_TYPE)
                .entity(new OAuth2ErrorRepresentation(refused.error(), refused.description()));
        refused.retryAfterSeconds().ifPresent(seconds -> response.header("Retry-After", seconds));
        return response.build();
    }
}
