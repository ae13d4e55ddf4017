package dev.scopeward.keycloak;

import java.util.List;
import org.jboss.logging.Logger;
import org.keycloak.Config;
import org.keycloak.component.ComponentModelScope;
import org.keycloak.models.KeycloakSession;
import org.keycloak.models.KeycloakSessionFactory;
import org.keycloak.provider.ProviderConfigProperty;
import org.keycloak.services.clientpolicy.executor.ClientPolicyExecutorProvider;
import org.keycloak.services.clientpolicy.executor.ClientPolicyExecutorProviderFactory;

/** Makes the executor {@code scopeward}. */
public final class ScopewardExecutorFactory implements ClientPolicyExecutorProviderFactory {
    /** The name of the executor in client profiles and server options. */
    public static final String PROVIDER_ID = "scopeward";

    private static final Logger LOG = Logger.getLogger(ScopewardExecutorFactory.class);

    // Keycloak makes one factory at its start and another one for each configuration of an executor. The target is known to the first.
    private static volatile ServerOptions serverOptions;

    private boolean isMain;

    /** Is called by Keycloak. */
    public ScopewardExecutorFactory() {}

    @Override
    public void init(Config.Scope scope) {
        isMain = !(scope instanceof ComponentModelScope);
        if (isMain) {
            serverOptions = ServerOptions.of(scope);
        }
    }

    @Override
    public void postInit(KeycloakSessionFactory factory) {
        if (!isMain) {
            return;
        }
        try {
            // Connects in the background, so that the first login does not wait for that.
            PolicyGate.of(serverOptions);
        } catch (RuntimeException | LinkageError error) {
            LOG.errorf("client policies with the executor scopeward will refuse all requests: %s", error);
        }
    }

    @Override
    public ClientPolicyExecutorProvider<?> create(KeycloakSession session) {
        return new ScopewardExecutor(session, serverOptions);
    }

    @Override
    public void close() {
        if (isMain) {
            PolicyGate.closeAll();
        }
    }

    @Override
    public String getId() {
        return PROVIDER_ID;
    }

    @Override
    public String getHelpText() {
        return "Asks Scopeward which scopes a client holds after it registers, and which an authorize request and a token get."
                + " Where Scopeward is, is set with the server option spi-client-policy-executor--scopeward--target.";
    }

    @Override
    public List<ProviderConfigProperty> getConfigProperties() {
        return List.of(
                new ProviderConfigProperty(ExecutorSettings.AUDIENCES, "Audiences",
                        "The resources that are asked for at registration, and at authorize where a client sends no resource parameter."
                                + " Empty: the policy's default.",
                        ProviderConfigProperty.MULTIVALUED_STRING_TYPE, null),
                new ProviderConfigProperty(ExecutorSettings.DEADLINE, "Deadline",
                        "What a question may take, such as 300ms; at most 10s. A request is refused after it.",
                        ProviderConfigProperty.STRING_TYPE, ExecutorSettings.DEFAULT_DEADLINE.toMillis() + "ms"),
                new ProviderConfigProperty(ExecutorSettings.IMPLICIT_OPENID, "Every client holds openid",
                        "Keycloak itself lets every client ask for openid. Off: only those that registered it.",
                        ProviderConfigProperty.BOOLEAN_TYPE, Boolean.TRUE));
    }
}
