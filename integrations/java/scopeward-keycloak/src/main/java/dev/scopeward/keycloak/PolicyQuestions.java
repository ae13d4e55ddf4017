package dev.scopeward.keycloak;

import dev.scopeward.client.AuthorizeQuestion;
import dev.scopeward.client.OAuthClient;
import dev.scopeward.client.RegistrationQuestion;
import dev.scopeward.client.TokenQuestion;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.HexFormat;
import java.util.List;
import java.util.Set;
import org.keycloak.models.ClientModel;

/** The three questions, with what the settings of a profile add to them. */
final class PolicyQuestions {
    private final PolicyGate gate;
    private final ExecutorSettings.Checked settings;

    PolicyQuestions(PolicyGate gate, ExecutorSettings.Checked settings) {
        this.gate = gate;
        this.settings = settings;
    }

    /** Asks what a client holds. A null scope was not sent; a null previous scope is that of a client that is new. */
    String expand(OAuthClient client, String scope, String previousScope) throws RefusedException {
        RegistrationQuestion question = RegistrationQuestion.builder()
                .scope(scope)
                .client(client)
                .audiences(settings.audiences())
                .previousScope(previousScope)
                .build();
        return gate.ask(question, settings.deadline()).scope();
    }

    /** Asks what a request of a stored client gets. Null or no resources count as the profile's audiences. */
    String ask(ClientModel client, String scope, List<String> resources, String... login) throws RefusedException {
        AuthorizeQuestion question = AuthorizeQuestion.builder()
                .scope(scope)
                .registeredScope(held(client))
                .audiences(resources == null || resources.isEmpty() ? settings.audiences() : resources)
                .client(ClientFacts.of(client))
                .correlationId(loginId(login))
                .build();
        return gate.ask(question, settings.deadline()).scope();
    }

    /** Asks what a token gets, for a question that has its grant and its scopes. Null or no resources count as above. */
    Set<String> ask(ClientModel client, TokenQuestion.Builder question, List<String> resources, String... login)
            throws RefusedException {
        question.registeredScope(held(client))
                .audiences(resources == null || resources.isEmpty() ? settings.audiences() : resources)
                .client(ClientFacts.of(client))
                .correlationId(loginId(login));
        return ClientFacts.tokens(gate.ask(question.build(), settings.deadline()).scope());
    }

    private String held(ClientModel client) {
        String registered = ClientFacts.registeredScope(client);
        if (!settings.isOpenidImplicit() || ClientFacts.tokens(registered).contains(ClientFacts.OPENID)) {
            return registered;
        }
        return (registered + " " + ClientFacts.OPENID).strip();
    }

    /** One id for all requests of a login, made of what the client sends with each of them. */
    private static String loginId(String... parameters) {
        try {
            MessageDigest digest = MessageDigest.getInstance("SHA-256");
            for (String parameter : parameters) {
                digest.update((parameter == null ? "" : parameter).getBytes(StandardCharsets.UTF_8));
                digest.update((byte) 0);
            }
            return HexFormat.of().formatHex(digest.digest()).substring(0, 32);
        } catch (NoSuchAlgorithmException error) {
            throw new IllegalStateException(error);
        }
    }
}
