package dev.scopeward.spring;

import dev.scopeward.client.ScopewardClient;
import java.nio.file.Path;
import java.util.function.Consumer;
import org.springframework.beans.factory.ObjectProvider;
import org.springframework.boot.autoconfigure.AutoConfiguration;
import org.springframework.boot.autoconfigure.condition.ConditionalOnClass;
import org.springframework.boot.autoconfigure.condition.ConditionalOnMissingBean;
import org.springframework.boot.autoconfigure.condition.ConditionalOnWebApplication;
import org.springframework.boot.context.properties.EnableConfigurationProperties;
import org.springframework.context.annotation.Bean;
import org.springframework.security.config.Customizer;
import org.springframework.security.config.annotation.web.builders.HttpSecurity;
import org.springframework.security.config.annotation.web.configurers.oauth2.server.authorization.OAuth2AuthorizationServerConfigurer;
import org.springframework.security.web.SecurityFilterChain;

/**
 * Attaches Scopeward to the authorization servers of the application.
 *
 * <p>A bean of {@link ScopewardClient} replaces the one that {@link ScopewardProperties} describe, and a bean of {@link ClientDescriber}
 * what the policy is told of a client.
 */
@AutoConfiguration
@ConditionalOnWebApplication(type = ConditionalOnWebApplication.Type.SERVLET)
@ConditionalOnClass(OAuth2AuthorizationServerConfigurer.class)
@EnableConfigurationProperties(ScopewardProperties.class)
public final class ScopewardAutoConfiguration {
    /** Makes the configuration. */
    public ScopewardAutoConfiguration() {}

    @Bean
    @ConditionalOnMissingBean
    ScopewardClient scopewardClient(ScopewardProperties properties) {
        if (properties.target().isEmpty()) {
            throw new NotAskingException("scopeward.target is not set", "Set it to where Scopeward is, such as 127.0.0.1:50551.");
        }
        try {
            ScopewardClient.Builder builder = ScopewardClient.builder(properties.target().toArray(String[]::new));
            ScopewardProperties.Tls tls = properties.tls();
            given(tls.caFile(), file -> builder.caFile(Path.of(file)));
            if (tls.certFile() != null || tls.privateKeyFile() != null) {
                builder.clientCertificate(path(tls.certFile()), path(tls.privateKeyFile()));
            }
            given(tls.serverName(), builder::serverName);
            given(properties.token(), builder::token);
            given(properties.tokenFile(), file -> builder.tokenFile(Path.of(file)));
            return builder.deadline(properties.deadline()).build();
        } catch (IllegalArgumentException error) {
            throw new NotAskingException("the settings scopeward.* are wrong: " + error.getMessage(), "Correct them.", error);
        }
    }

    private static void given(String setting, Consumer<String> use) {
        if (setting != null) {
            use.accept(setting);
        }
    }

    private static Path path(String setting) {
        return setting == null ? null : Path.of(setting);
    }

    @Bean
    Attachments scopewardAttachments(ObjectProvider<SecurityFilterChain> chains) {
        return new Attachments(chains);
    }

    @Bean
    Customizer<HttpSecurity> scopewardCustomizer(
            ScopewardClient client, ScopewardProperties properties, ObjectProvider<ClientDescriber> describer, Attachments attachments) {
        Asker asker = new Asker(client, properties.audiences(),
                describer.getIfAvailable(() -> stored -> ClientDescriber.describe(stored, ClientDescriber.sourceOf(stored))));
        return http -> http.with(new ScopewardConfigurer(asker, attachments));
    }
}
