package dev.scopeward.spring;

import dev.scopeward.client.AuthorizeQuestion;
import dev.scopeward.client.ClientSource;
import dev.scopeward.client.DeniedException;
import dev.scopeward.client.OAuthClient;
import dev.scopeward.client.RegistrationQuestion;
import dev.scopeward.client.ScopewardClient;
import dev.scopeward.client.ScopewardException;
import dev.scopeward.client.TokenGrant;
import dev.scopeward.client.TokenQuestion;
import java.util.Arrays;
import java.util.Collection;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.function.Supplier;
import org.apache.commons.logging.Log;
import org.apache.commons.logging.LogFactory;
import org.springframework.security.oauth2.server.authorization.client.RegisteredClient;

/** All three questions, in the words of the server. Every failure is a {@link PolicyFailureException}. */
final class Asker {
    private static final Log LOG = LogFactory.getLog(Asker.class);

    private final ScopewardClient client;
    private final List<String> audiences;
    private final ClientDescriber describer;

    Asker(ScopewardClient client, List<String> audiences, ClientDescriber describer) {
        this.client = client;
        this.audiences = audiences;
        this.describer = describer;
    }

    /**
     * A client registers.
     *
     * @param scope as received, or null
     * @param metadata as received
     * @return the scopes to store, not empty
     */
    Set<String> register(String scope, Map<String, Object> metadata) {
        return ask(() -> client.expandRegistrationScopes(RegistrationQuestion.builder()
                .scope(scope)
                .client(OAuthClient.fromMetadata(metadata, "", ClientSource.DCR))
                .audiences(audiences)
                .build()).scope());
    }

    /**
     * A client asks for scopes.
     *
     * @param scope as received, or null
     * @param stored the client
     * @param parameters those of the request, {@code resource} among them
     * @param loginId the same for all requests of a login; empty if there is none
     * @return the scopes to grant, not empty
     */
    Set<String> authorize(String scope, RegisteredClient stored, Map<String, Object> parameters, String loginId) {
        return ask(() -> {
            OAuthClient described = describer.describe(stored);
            List<String> resources = texts(parameters.get("resource"));
            return client.checkAuthorizeScopes(AuthorizeQuestion.builder()
                    .scope(scope)
                    .registeredScope(registeredScope(stored, described))
                    .audiences(resources.isEmpty() ? audiences : resources)
                    .client(described)
                    .correlationId(loginId)
                    .build()).scope();
        });
    }

    /**
     * A client asks for a token.
     *
     * @param grant what it presents
     * @param scope as received, or null
     * @param grantedScope what the grant stands for; null if it says nothing of scopes
     * @param stored the client
     * @param resources what the token is for; empty if nobody has said
     * @return the scopes of the token, not empty
     */
    Set<String> token(TokenGrant grant, String scope, String grantedScope, RegisteredClient stored, List<String> resources) {
        return ask(() -> {
            OAuthClient described = describer.describe(stored);
            return client.checkTokenScopes(TokenQuestion.builder(grant)
                    .scope(scope)
                    .grantedScope(grantedScope)
                    .registeredScope(registeredScope(stored, described))
                    .audiences(resources.isEmpty() ? audiences : resources)
                    .client(described)
                    .build()).scope();
        });
    }

    /** Null where nobody has said what the client registered: what it may have is then for the policy to say. */
    private static String registeredScope(RegisteredClient stored, OAuthClient described) {
        // What a metadata document says of scopes is no registration.
        boolean isUnknown = stored.getScopes().isEmpty() || described.source() == ClientSource.CIMD;
        return isUnknown ? null : String.join(" ", stored.getScopes().stream().sorted().toList());
    }

    private static Set<String> ask(Supplier<String> question) {
        try {
            return new LinkedHashSet<>(List.of(question.get().split(" ")));
        } catch (ScopewardException failure) {
            // One line: gRPC breaks some of its messages.
            String message = failure.getMessage().replaceAll("\\R", " ");
            if (failure instanceof DeniedException) {
                LOG.debug("Scopeward denies: " + message);
            } else {
                LOG.warn("no answer from Scopeward: " + message);
            }
            throw new PolicyFailureException(failure);
        } catch (RuntimeException failure) {
            LOG.error("could not ask Scopeward", failure);
            throw PolicyFailureException.serverError("the scope policy could not be asked", failure);
        }
    }

    /** A parameter that may be there several times, as the server keeps it, and as a store gives it back; without empty ones. */
    static List<String> texts(Object value) {
        Collection<?> values = value instanceof Object[] array ? Arrays.asList(array)
                : value instanceof Collection<?> collection ? collection
                : value == null ? List.of() : List.of(value);
        return values.stream().map(String::valueOf).filter(text -> !text.isEmpty()).toList();
    }
}
