package dev.scopeward.spring;

import dev.scopeward.client.ClientSource;
import dev.scopeward.client.OAuthClient;
import java.util.List;
import java.util.Locale;
import org.springframework.security.oauth2.core.AuthorizationGrantType;
import org.springframework.security.oauth2.server.authorization.client.RegisteredClient;

/**
 * Says what the policy is told of a stored client. A bean of this type replaces the default, {@link #describe(RegisteredClient,
 * ClientSource)} with {@link #sourceOf}.
 *
 * <p>The server stores no {@code software_id} and no {@code application_type}, so that rules on these hold at registration alone. A
 * repository that keeps them can tell them here.
 */
@FunctionalInterface
public interface ClientDescriber {
    /**
     * Describes a client.
     *
     * @param client as stored
     * @return what the policy is told
     */
    OAuthClient describe(RegisteredClient client);

    /**
     * Describes a client by what the server stores of it: id, name, redirect URIs and grant types.
     *
     * @param client as stored
     * @param source where it is from
     * @return the client
     */
    static OAuthClient describe(RegisteredClient client, ClientSource source) {
        // A client without a name is stored with its internal id as name.
        String name = client.getClientName().equals(client.getId()) ? "" : client.getClientName();
        List<String> grantTypes = client.getAuthorizationGrantTypes().stream().map(AuthorizationGrantType::getValue).sorted().toList();
        List<String> redirectUris = client.getRedirectUris().stream().sorted().toList();
        return new OAuthClient(client.getClientId(), source, name, "", "", redirectUris, grantTypes, "");
    }

    /**
     * Returns where a client is from, as far as the server knows: an https id is a metadata document, a client without the time of its
     * registration is one of the operator, and any other has registered.
     *
     * @param client as stored; a {@code JdbcRegisteredClientRepository} gives each client a time
     * @return the source
     */
    static ClientSource sourceOf(RegisteredClient client) {
        if (client.getClientId().toLowerCase(Locale.ROOT).startsWith("https://")) {
            return ClientSource.CIMD;
        }
        return client.getClientIdIssuedAt() == null ? ClientSource.STATIC : ClientSource.DCR;
    }
}
