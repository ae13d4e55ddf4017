package dev.scopeward.keycloak;

import jakarta.ws.rs.WebApplicationException;
import jakarta.ws.rs.core.Response;
import java.util.Set;
import org.jboss.logging.Logger;
import org.keycloak.models.ClientModel;
import org.keycloak.models.KeycloakSession;
import org.keycloak.protocol.oidc.grants.device.clientpolicy.context.DeviceAuthorizationRequestContext;
import org.keycloak.protocol.oidc.par.clientpolicy.context.PushedAuthorizationRequestContext;
import org.keycloak.protocol.oidc.refresh.RefreshTokenException;
import org.keycloak.protocol.oidc.token.TokenInterceptorException;
import org.keycloak.services.clientpolicy.ClientPolicyContext;
import org.keycloak.services.clientpolicy.ClientPolicyException;
import org.keycloak.services.clientpolicy.context.AuthorizationRequestContext;
import org.keycloak.services.clientpolicy.context.ClientCRUDContext;
import org.keycloak.services.clientpolicy.context.ClientModelContext;
import org.keycloak.services.clientpolicy.context.JWTAuthorizationGrantContext;
import org.keycloak.services.clientpolicy.context.PreAuthorizationRequestContext;
import org.keycloak.services.clientpolicy.context.ScopeParameterContext;
import org.keycloak.services.clientpolicy.context.ServiceAccountTokenRequestContext;
import org.keycloak.services.clientpolicy.context.TokenExchangeRequestContext;
import org.keycloak.services.clientpolicy.context.TokenRefreshContext;
import org.keycloak.services.clientpolicy.executor.ClientPolicyExecutorProvider;

/**
 * Asks Scopeward at each event that grants scopes. What is not a grant of Scopeward is refused.
 *
 * <table>
 * <caption>What happens when</caption>
 * <tr><th>event</th><th>what is done</th></tr>
 * <tr><td>REGISTER, UPDATE, of dynamic registration and of metadata documents</td><td>expanded. Not gated: an administrator's own
 *     edits</td></tr>
 * <tr><td>PRE_AUTHORIZATION_REQUEST, AUTHORIZATION_REQUEST, PUSHED_AUTHORIZATION_REQUEST</td><td>decided, and narrowed or
 *     filled in; a request object is refused if not all of its scope is granted</td></tr>
 * <tr><td>TOKEN_REFRESH</td><td>decided by what the refresh token stands for, and narrowed (RFC 6749 section 6)</td></tr>
 * <tr><td>SERVICE_ACCOUNT_TOKEN_REQUEST, TOKEN_EXCHANGE_REQUEST, JWT_AUTHORIZATION_GRANT</td><td>decided as tokens if scopes are asked for,
 *     and narrowed. Without {@code scope} Keycloak grants the client's default client scopes, which are not gated</td></tr>
 * <tr><td>DEVICE_AUTHORIZATION_REQUEST, BACKCHANNEL_AUTHENTICATION_REQUEST, RESOURCE_OWNER_PASSWORD_CREDENTIALS_REQUEST</td><td>decided as
 *     authorize requests if scopes are asked for; refused if not all of them are granted, since Keycloak lets nobody change these
 *     requests. Without {@code scope} as above</td></tr>
 * <tr><td>PRE_TOKEN_REQUEST, TOKEN_REQUEST, BACKCHANNEL_TOKEN_REQUEST, DEVICE_TOKEN_REQUEST, the responses</td><td>not gated: they issue what
 *     was decided before</td></tr>
 * <tr><td>VIEW, UNREGISTER, TOKEN_REVOKE, TOKEN_INTROSPECT, USERINFO_REQUEST, LOGOUT_REQUEST, IDENTITY_BROKERING_API, SAML</td><td>not
 *     gated: no scope is granted</td></tr>
 * <tr><td>any other</td><td>refused: it is one of a newer Keycloak, and may grant scopes</td></tr>
 * </table>
 */
public final class ScopewardExecutor implements ClientPolicyExecutorProvider<ExecutorSettings> {
    private static final Logger LOG = Logger.getLogger(ScopewardExecutor.class);

    private final KeycloakSession session;
    private final ServerOptions options;
    private ExecutorSettings.Checked settings = new ExecutorSettings().checked();

    ScopewardExecutor(KeycloakSession session, ServerOptions options) {
        this.session = session;
        this.options = options;
    }

    @Override
    public String getProviderId() {
        return ScopewardExecutorFactory.PROVIDER_ID;
    }

    @Override
    public Class<ExecutorSettings> getExecutorConfigurationClass() {
        return ExecutorSettings.class;
    }

    @Override
    public void setupConfiguration(ExecutorSettings given) {
        if (given != null) {
            settings = given.checked();
        }
    }

    @Override
    public void executeOnEvent(ClientPolicyContext context) throws ClientPolicyException {
        try {
            dispatch(context);
        } catch (RefusedException refused) {
            throw exception(refused);
        } catch (WebApplicationException | RefreshTokenException | TokenInterceptorException answer) {
            throw answer;
        } catch (RuntimeException | LinkageError error) {
            LOG.errorf(error, "executor scopeward failed at %s", context.getEvent());
            throw exception(RefusedException.broken(error));
        }
    }

    /** What is done at an event. */
    private interface Step {
        void run() throws ClientPolicyException, RefusedException;
    }

    /** Names each event of Keycloak: one that is new does not compile, and throws where it happens. See the table above. */
    private void dispatch(ClientPolicyContext context) throws ClientPolicyException, RefusedException {
        Step step = switch (context.getEvent()) {
            case REGISTER, UPDATE -> () -> new RegistrationEvents(session, this::questions).expand((ClientCRUDContext) context);
            case REGISTERED, UPDATED -> () -> RegistrationEvents.refuseRemembered(session);
            case PRE_AUTHORIZATION_REQUEST -> () ->
                    new AuthorizationEvents(session, this::questions).beforeRequest((PreAuthorizationRequestContext) context);
            case AUTHORIZATION_REQUEST -> () ->
                    new AuthorizationEvents(session, this::questions).request((AuthorizationRequestContext) context);
            case PUSHED_AUTHORIZATION_REQUEST -> () ->
                    new AuthorizationEvents(session, this::questions).pushed((PushedAuthorizationRequestContext) context);
            case DEVICE_AUTHORIZATION_REQUEST -> () -> {
                DeviceAuthorizationRequestContext device = (DeviceAuthorizationRequestContext) context;
                ClientModel client = session.getContext().getRealm().getClientByClientId(device.getRequest().getClientId());
                check(client, device.getRequest().getScope());
            };
            case BACKCHANNEL_AUTHENTICATION_REQUEST, RESOURCE_OWNER_PASSWORD_CREDENTIALS_REQUEST -> () ->
                    check(((ClientModelContext) context).getClient(), ((ScopeParameterContext) context).getScopeParameter());
            case TOKEN_REFRESH -> () -> new TokenEvents(session, this::questions).refresh((TokenRefreshContext) context);
            case SERVICE_ACCOUNT_TOKEN_REQUEST -> () ->
                    new TokenEvents(session, this::questions).serviceAccount((ServiceAccountTokenRequestContext) context);
            case TOKEN_EXCHANGE_REQUEST -> () ->
                    new TokenEvents(session, this::questions).exchange((TokenExchangeRequestContext) context);
            case JWT_AUTHORIZATION_GRANT -> () ->
                    new TokenEvents(session, this::questions).assertion((JWTAuthorizationGrantContext) context);
            case PRE_TOKEN_REQUEST, TOKEN_REQUEST, TOKEN_RESPONSE, TOKEN_REFRESH_RESPONSE,
                    SERVICE_ACCOUNT_TOKEN_RESPONSE, IMPLICIT_HYBRID_TOKEN_RESPONSE, BACKCHANNEL_TOKEN_REQUEST,
                    BACKCHANNEL_TOKEN_RESPONSE, DEVICE_TOKEN_REQUEST, DEVICE_TOKEN_RESPONSE,
                    RESOURCE_OWNER_PASSWORD_CREDENTIALS_RESPONSE, VIEW, UNREGISTER, TOKEN_REVOKE, TOKEN_REVOKE_RESPONSE,
                    TOKEN_INTROSPECT, USERINFO_REQUEST, LOGOUT_REQUEST, IDENTITY_BROKERING_API, SAML_AUTHN_REQUEST,
                    SAML_LOGOUT_REQUEST -> () -> { };
        };
        step.run();
    }

    /** Decides a request that nobody can change: all of its scopes are granted, or it is refused. */
    private void check(ClientModel client, String scope) throws RefusedException {
        if (scope == null || ClientFacts.tokens(scope).isEmpty()) {
            return;
        }
        if (client == null) {
            throw new IllegalStateException("there is no client");
        }
        Set<String> granted = ClientFacts.tokens(questions().ask(client, scope, null, client.getClientId()));
        if (!granted.containsAll(ClientFacts.tokens(scope))) {
            throw RefusedException.narrower();
        }
    }

    private PolicyQuestions questions() {
        if (!settings.problems().isEmpty()) {
            throw new IllegalStateException(String.join("; ", settings.problems()));
        }
        return new PolicyQuestions(PolicyGate.of(options), settings);
    }

    private static ClientPolicyException exception(RefusedException refused) {
        return new ClientPolicyException(
                refused.error(), refused.description(), Response.Status.fromStatusCode(refused.status()), refused);
    }
}
