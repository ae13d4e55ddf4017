package dev.scopeward.spring;

import org.springframework.security.config.annotation.web.builders.HttpSecurity;
import org.springframework.security.config.annotation.web.configurers.AbstractHttpConfigurer;
import org.springframework.security.config.annotation.web.configurers.oauth2.server.authorization.OAuth2AuthorizationServerConfigurer;

/**
 * Attaches Scopeward to the authorization server of a filter chain, if it has one.
 *
 * <p>It calls none of the methods that switch an endpoint on, but looks at what the server makes of its configuration.
 */
final class ScopewardConfigurer extends AbstractHttpConfigurer<ScopewardConfigurer, HttpSecurity> {
    private final Asker asker;
    private final Attachments attachments;
    private boolean isAttached;

    ScopewardConfigurer(Asker asker, Attachments attachments) {
        this.asker = asker;
        this.attachments = attachments;
    }

    @Override
    public void init(HttpSecurity http) {
        attach(http);
        if (!isAttached) {
            // Another configurer may add the server in its own init, which is later than this one, and earlier than that of the server.
            http.with(new SecondStage(this));
        }
    }

    @Override
    public void configure(HttpSecurity http) {
        if (!isAttached && http.getConfigurer(OAuth2AuthorizationServerConfigurer.class) != null) {
            throw new NotAskingException("Scopeward could not attach to an authorization server that was added too late",
                    "Add the OAuth2AuthorizationServerConfigurer while the HttpSecurity is configured.");
        }
    }

    private void attach(HttpSecurity http) {
        OAuth2AuthorizationServerConfigurer server = http.getConfigurer(OAuth2AuthorizationServerConfigurer.class);
        if (server != null) {
            server.addObjectPostProcessor(attachments.add(new Attachment(asker, http)));
            isAttached = true;
        }
    }

    private static final class SecondStage extends AbstractHttpConfigurer<SecondStage, HttpSecurity> {
        private final ScopewardConfigurer first;

        SecondStage(ScopewardConfigurer first) {
            this.first = first;
        }

        @Override
        public void init(HttpSecurity http) {
            first.attach(http);
        }
    }
}
