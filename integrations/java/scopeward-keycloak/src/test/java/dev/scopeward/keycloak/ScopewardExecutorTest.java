package dev.scopeward.keycloak;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;

import java.lang.reflect.Proxy;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.keycloak.models.ClientModel;
import org.keycloak.services.clientpolicy.ClientPolicyContext;
import org.keycloak.services.clientpolicy.ClientPolicyEvent;
import org.keycloak.services.clientpolicy.ClientPolicyException;
import org.keycloak.services.clientpolicy.context.ClientModelContext;
import org.keycloak.services.clientpolicy.context.ScopeParameterContext;

/** An executor that cannot ask grants nothing, without a Keycloak. */
class ScopewardExecutorTest {
    private interface Grant extends ClientModelContext, ScopeParameterContext {}

    /** The request of a client for a scope, at an event where it is refused or passes as it is. */
    private static ClientPolicyContext context(ClientPolicyEvent event) {
        ClientModel client = proxy(ClientModel.class, Map.of("getClientId", "tool"));
        return proxy(Grant.class, Map.of("getEvent", event, "getClient", client, "getScopeParameter", "openid"));
    }

    private static <T> T proxy(Class<T> type, Map<String, Object> answers) {
        return type.cast(Proxy.newProxyInstance(type.getClassLoader(), new Class<?>[] {type},
                (self, method, arguments) -> answers.get(method.getName())));
    }

    private static void assertRefused(ScopewardExecutor executor) {
        for (ClientPolicyEvent event : List.of(ClientPolicyEvent.BACKCHANNEL_AUTHENTICATION_REQUEST, ClientPolicyEvent.RESOURCE_OWNER_PASSWORD_CREDENTIALS_REQUEST)) {
            ClientPolicyException refused = assertThrows(ClientPolicyException.class, () -> executor.executeOnEvent(context(event)));
            assertEquals("server_error", refused.getError());
            assertEquals("the scope policy could not be asked; try again later", refused.getErrorDetail());
        }
    }

    @Test
    void without_a_target_nothing_is_granted() {
        assertRefused(new ScopewardExecutor(null, new ServerOptions(null, null, null, null, null, null)));
    }

    @Test
    void with_settings_that_are_wrong_nothing_is_granted() {
        ScopewardExecutor executor = new ScopewardExecutor(null, new ServerOptions("127.0.0.1:1", null, null, null, null, null));
        ExecutorSettings settings = new ExecutorSettings();
        settings.setConfigAsMap("deadline", "300");
        assertFalse(settings.checked().problems().isEmpty());
        executor.setupConfiguration(settings);
        assertRefused(executor);
        PolicyGate.closeAll();
    }

    @Test
    void an_event_that_cannot_be_read_is_refused() {
        ScopewardExecutor executor = new ScopewardExecutor(null, new ServerOptions(null, null, null, null, null, null));
        ClientPolicyContext strange = proxy(ClientPolicyContext.class, Map.of("getEvent", ClientPolicyEvent.PRE_AUTHORIZATION_REQUEST));
        assertEquals("server_error", assertThrows(ClientPolicyException.class, () -> executor.executeOnEvent(strange)).getError());
    }
}
